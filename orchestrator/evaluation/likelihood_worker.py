"""What a worker of a likelihood does: the bound of a shard's images under the model."""

import threading
from dataclasses import asdict, dataclass

import numpy as np
import torch

from ddpm.compute import ComputeDecision, decide_compute
from ddpm.config import network_name
from ddpm.errors import CheckpointFormatError
from ddpm.process.bound_sums import BoundSums, measure_bound
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.training.checkpoint import CheckpointInfo, load_model
from ddpm.training.data import ImageDataset, to_float
from orchestrator.artifacts.checkpoints.own_code import network_change, network_decision
from orchestrator.artifacts.checkpoints.resolve import fetch_model
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.refs import describe
from orchestrator.attempts.compute import set_up_process
from orchestrator.cluster.cache import cache_folder
from orchestrator.errors import BadInputError, CheckpointError
from orchestrator.evaluation.bound_shards import BoundShards
from orchestrator.evaluation.decisions import BOUND_DECISIONS
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore, open_store
from orchestrator.store.outages import Backoff, outlast_outage


@dataclass(frozen=True, kw_only=True)
class LikelihoodSetup:
    """What a worker needs to know to compute the bound for a job.

    Attributes:
        store_uri: The store.
        job_id: The job.
        spec: What was asked.
        model: The checkpoint.
        cpus: Threads of the worker.
        uses_gpu: Whether it was given a GPU.
    """

    store_uri: str
    job_id: str
    spec: LikelihoodJob
    model: ResolvedModel
    cpus: int
    uses_gpu: bool

    def open(self, worker: str) -> "LikelihoodWorker":
        """Return what the worker of this name works with."""
        del worker
        return LikelihoodWorker(open_store(self.store_uri), self)


class LikelihoodWorker:
    """Computes the bound of images under one model, in float32."""

    def __init__(self, store: ObjectStore, setup: LikelihoodSetup) -> None:
        self._store = store
        self._setup = setup
        self._shards = BoundShards(store, JobPaths(setup.job_id))
        self._abandon = threading.Event()

    def prepare(self, decisions: Decisions | None) -> Decisions:
        """Load model and images, and propose how to compute.

        Raises:
            CheckpointError: The checkpoint is gone or damaged.
            BadInputError: The model does not take such images, or has fewer timesteps.
        """
        setup = self._setup
        local = fetch_model(self._store, setup.model)
        try:
            self._model, self._info = load_model(local.folder, weights=setup.model.weights)
        except CheckpointFormatError as error:
            raise CheckpointError(f"{setup.model.commit_key} does not fit: {error}") from error
        self._images = open_split(self._store, setup.spec.dataset, setup.spec.split)
        _check_fit(setup.spec, self._info, self._images)
        if decisions is not None:
            return Decisions()
        compute = decide_compute(
            precision="float32",
            compile_request=False,
            num_threads=setup.cpus,
            worth_compiling=False,
            prediction=self._info.diffusion_config.prediction,
            own_network=network_name(self._info.unet_config),
            device_kind="cuda" if setup.uses_gpu else "cpu",
        )
        decided = {"compute": compute.to_json(), "model": asdict(setup.model)}
        return Decisions({**decided, **network_decision(self._info.unet_config)})

    def begin(self, decisions: Decisions) -> list[str]:
        """Put the network where it computes. Raises: BadInputError."""
        compute = ComputeDecision.from_json(BOUND_DECISIONS.of(decisions.values).compute)
        if (compute.device_kind == "cuda") != self._setup.uses_gpu:
            raise BadInputError(
                f"the likelihood was begun on {compute.device_kind}, which this worker does not "
                "have; go on with the same resources, or submit under a new --id"
            )
        if change := network_change(decisions.values, self._info.unet_config):
            raise BadInputError(f"the likelihood was begun with {change}; submit under a new --id")
        set_up_process(compute)
        compute.place(self._model)
        self._diffusion = GaussianDiffusion(self._info.diffusion_config).to(compute.device)
        self._device = compute.device
        return []

    def compute(self, task: ShardTask, watch: Watch) -> BoundSums | None:
        """Return what a shard's images give; None if the worker was told to stop or drop it."""
        spec, shard = self._setup.spec, task.shard
        watch.show(shard.index, 0, 1)
        if watch.is_stopped or watch.is_dropped(shard.index):
            return None
        chosen = np.arange(shard.start, shard.stop)
        sums = measure_bound(
            self._model,  # told no class, if it knows some
            self._diffusion,
            to_float(self._images.read(chosen).to(self._device)),
            torch.from_numpy(chosen).to(self._device),
            seed=spec.seed,
            num_draws=spec.num_draws,
            num_timesteps=spec.num_timesteps,
            clip_denoised=spec.clip_denoised,
            num_levels=self._images.num_levels,
        )
        watch.count(1)
        return sums

    def keep(self, task: ShardTask, result: BoundSums | None) -> ShardEvent:
        """Commit a shard."""
        index = task.shard.index
        if result is None:
            return ShardEvent(index=index, kind="halved")
        is_own = outlast_outage(
            lambda: self._shards.put(task.shard, result), Backoff(), self._abandon
        )
        return ShardEvent(index=index, kind="committed", is_own=is_own)


def open_split(store: ObjectStore, spec: DatasetSpec, split: str) -> ImageDataset:
    """Return the images of one part of a data set, split as a training splits it."""
    ref = describe(store, str(spec.sha256))
    path = fetch(store, ref.images, cache_folder("datasets"))
    images = ImageDataset.open(path, None, ref.value_range)
    if split == "all":
        return images
    train, holdout = images.split(spec.holdout_fraction)
    return train if split == "train" else holdout


def _check_fit(spec: LikelihoodJob, info: CheckpointInfo, images: ImageDataset) -> None:
    if images.image_shape != info.image_shape:
        raise BadInputError(
            f"the model is of images {_size(info.image_shape)}, {spec.dataset.source} has images "
            f"{_size(images.image_shape)}: give the data set that it was trained on"
        )
    if info.unet_config.family != "ddpm":
        raise BadInputError(
            f"the model is a {info.unet_config.family}: a likelihood job bounds a DDPM's alone (a "
            "VAE's training logs its own bound at its end)"
        )
    limit = info.diffusion_config.num_timesteps
    if spec.num_timesteps is not None and spec.num_timesteps > limit:
        raise BadInputError(
            f"num_timesteps is {spec.num_timesteps}, but the model has {limit} timesteps; ask for "
            f"{limit} at most"
        )


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height} x {width} x {channels}"
