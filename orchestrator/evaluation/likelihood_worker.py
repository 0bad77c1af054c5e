"""What a worker of a likelihood does: the bound of a shard's images under the model."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddpm.compute import ComputeDecision, Workload, decide_compute
from ddpm.errors import CheckpointFormatError
from ddpm.network.generative import GenerativeNetwork
from ddpm.process.bound_sums import BoundSums, measure_bound
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.training.checkpoint import load_model
from ddpm.training.checkpoint_info import CheckpointInfo
from ddpm.training.data import ImageDataset, to_float
from orchestrator.artifacts.checkpoints.own_code import network_change, network_decision
from orchestrator.artifacts.checkpoints.resolve import fetch_model
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.refs import describe
from orchestrator.attempts.address import AttemptAddress
from orchestrator.attempts.compute import set_up_process
from orchestrator.cluster.cache import cache_folder
from orchestrator.errors import BadInputError, CheckpointError
from orchestrator.evaluation.bound_shards import BoundShards
from orchestrator.evaluation.decisions import BOUND_DECISIONS, BoundDecisions
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage
from orchestrator.store.s3_store import open_store


@dataclass(frozen=True, kw_only=True)
class LikelihoodSetup(AttemptAddress):
    """What a worker needs to know to compute the bound for a job.

    Attributes:
        spec: What was asked.
        model: The checkpoint.
        cpus: Threads of the worker.
        uses_gpu: Whether it was given a GPU.
    """

    spec: LikelihoodJob
    model: ResolvedModel
    cpus: int
    uses_gpu: bool

    def open(self, worker: str, decisions: Decisions | None) -> "PreparedLikelihood":
        """Load model and images. Raises: as of `PreparedLikelihood.load`."""
        del worker
        return PreparedLikelihood.load(open_store(self.store_uri), self, decisions)


@dataclass(frozen=True, kw_only=True)
class PreparedLikelihood:
    """A model and its images, before the network is where it computes.

    Attributes:
        store: Where the bounds go.
        setup: What is asked.
        model: The network.
        info: What its checkpoint says of it.
        images: Those to bound.
        proposal: How this machine would compute; nothing where that is decided.
    """

    store: ObjectStore
    setup: LikelihoodSetup
    model: GenerativeNetwork
    info: CheckpointInfo
    images: ImageDataset
    proposal: Decisions

    @classmethod
    def load(
        cls, store: ObjectStore, setup: LikelihoodSetup, decisions: Decisions | None
    ) -> "PreparedLikelihood":
        """Load model and images, and propose how to compute.

        Raises:
            CheckpointError: The checkpoint is gone or damaged.
            BadInputError: The model does not take such images, or has fewer timesteps.
        """
        local = fetch_model(store, setup.model)
        try:
            model, info = load_model(local.folder, weights=setup.model.weights)
        except CheckpointFormatError as error:
            raise CheckpointError(f"{setup.model.commit_key} does not fit: {error}") from error
        images = open_split(store, setup.spec.dataset, setup.spec.split)
        _check_fit(setup.spec, info, images)
        proposal = Decisions() if decisions is not None else cls._proposal(setup, info)
        return cls(
            store=store, setup=setup, model=model, info=info, images=images, proposal=proposal
        )

    @staticmethod
    def _proposal(setup: LikelihoodSetup, info: CheckpointInfo) -> Decisions:
        work = Workload(network=info.unet_config, diffusion=info.diffusion_config)
        compute = decide_compute(
            work,
            precision="float32",
            compile_request=False,
            num_threads=setup.cpus,
            worth_compiling=False,
            device_kind="cuda" if setup.uses_gpu else "cpu",
        )
        decided = BoundDecisions(model=setup.model, compute=compute.to_json())
        own = network_decision(info.unet_config)
        return Decisions({**BOUND_DECISIONS.as_json(decided), **own})

    def begin(self, decisions: Decisions) -> "LikelihoodWorker":
        """Put the network where it computes. Raises: BadInputError."""
        compute = ComputeDecision.from_json(BOUND_DECISIONS.of(decisions.values).compute)
        if (compute.device_kind == "cuda") != self.setup.uses_gpu:
            raise BadInputError(
                f"the likelihood was begun on {compute.device_kind}, which this worker does not "
                "have; go on with the same resources, or submit under a new --id"
            )
        if change := network_change(decisions.values, self.info.unet_config):
            raise BadInputError(f"the likelihood was begun with {change}; submit under a new --id")
        set_up_process(compute)
        compute.place(self.model)
        return LikelihoodWorker(self, compute.device)


class LikelihoodWorker:
    """Computes the bound of images under one model, in float32.

    Args:
        prepared: The model, and its images.
        device: Where the model was put.

    Attributes:
        remarks: None.
    """

    remarks: Sequence[str] = ()

    def __init__(self, prepared: PreparedLikelihood, device: torch.device) -> None:
        self._spec = prepared.setup.spec
        self._model = prepared.model
        self._images = prepared.images
        self._diffusion = GaussianDiffusion(prepared.info.diffusion_config).to(device)
        self._device = device
        self._shards = BoundShards(prepared.store, JobPaths(prepared.setup.job_id))
        self._abandon = threading.Event()

    def compute(self, task: ShardTask, watch: Watch) -> BoundSums | None:
        """Return what a shard's images give; None if the worker was told to stop or drop it."""
        spec, shard = self._spec, task.shard
        watch.show(shard.index, 0, 1)
        if watch.is_stopped or watch.is_dropped(shard.index):
            return None
        chosen = np.arange(shard.start, shard.stop)
        sums = measure_bound(
            self._model,  # unconditional, if it knows classes
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
