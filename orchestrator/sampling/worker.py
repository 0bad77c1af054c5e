"""What a sample worker works with: the model, what was decided, and where finished shards go."""

import copy
import dataclasses
import logging
import platform
import secrets
import threading
import time

import torch

from ddpm.compute import ComputeDecision, compile_obstacle, decide_compute
from ddpm.config import SamplingConfig, network_name
from ddpm.errors import CheckpointFormatError
from ddpm.kernels.amx.network import fits_tiles, tiles_obstacle
from ddpm.network.generative import GenerativeNetwork
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.steps import plan_steps, settled
from ddpm.training.checkpoint import load_model
from orchestrator.artifacts.checkpoints.own_code import network_change, network_decision
from orchestrator.artifacts.checkpoints.resolve import fetch_model
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.artifacts.samples.labels import make_rule
from orchestrator.artifacts.samples.shards import (
    SampleShards,
    ShardCommit,
    encode_array,
    encode_shard,
    hash_bytes,
    hash_labels,
    hash_pixels,
    origin_of,
    suffix_of,
)
from orchestrator.attempts.compile_turn import compile_in_turn
from orchestrator.attempts.compute import kernel_folder, set_up_process, threads_of
from orchestrator.errors import BadInputError, CheckpointError
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.sampling.drawing import DrawnShard, ShardSampler, UnfinishedShard
from orchestrator.sampling.network import (
    Drawing,
    build_denoiser,
    build_diffusion,
    environment,
    honoured_environment,
    recorded_sampling,
)
from orchestrator.sampling.partials import load_partial, save_partial
from orchestrator.sampling.setup import StoreSetup
from orchestrator.sampling.smoke import smoke_drawing
from orchestrator.specs.job import SMOKE_STEPS
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage

logger = logging.getLogger(__name__)

_WORTH_COMPILING_S = 300.0

Result = DrawnShard | UnfinishedShard | None


class SampleWorker:
    """The worker that draws with a trained network and commits to the store."""

    def __init__(self, store: ObjectStore, setup: StoreSetup, worker: str) -> None:
        self._store = store
        self._setup = setup
        self._worker = worker
        self._paths = JobPaths(setup.job_id).attempt(setup.attempt)
        self._shards = SampleShards(store, JobPaths(setup.job_id))
        self._abandon = threading.Event()

    def prepare(self, decisions: Decisions | None) -> Decisions:
        """Load the checkpoint and propose how to compute.

        Raises:
            CheckpointError: The checkpoint is gone or damaged.
            ConfigError: The sampler does not fit the model.
        """
        model = self._setup.model
        local = fetch_model(self._store, model)
        try:
            self._model, self._info = load_model(local.folder, weights=model.weights)
        except CheckpointFormatError as error:
            raise CheckpointError(f"{model.commit_key} does not fit: {error}") from error
        sampling = self._setup.spec.sampling
        plan_steps(sampling, GaussianDiffusion(self._info.diffusion_config))
        self._rule = make_rule(
            sampling,
            self._info.unet_config.known_classes,
            self._info.fixed.get("class_names", ()),
        )
        return Decisions() if decisions else Decisions(self._proposal())

    def _proposal(self) -> dict[str, object]:
        setup, sampling = self._setup, self._setup.spec.sampling
        compute = first = self._decide(worth_compiling=False)
        may_compile = sampling.compile == "auto" and first.kernels == "torch"
        if may_compile and compile_obstacle(first.device_kind) is None:
            seconds = self._estimate_s(first)
            compute = self._decide(worth_compiling=seconds > _WORTH_COMPILING_S)
        return {
            "compute": compute.to_json(),
            "model": dataclasses.asdict(setup.model),
            "sampling": dataclasses.asdict(settled(sampling, self._info.diffusion_config)),
            "image_shape": list(self._info.image_shape),
            "num_samples": setup.spec.num_samples,
            "shard_size": setup.spec.shard_size,
            **({"labels": self._rule.to_json()} if self._rule else {}),
            **environment(first),
            **network_decision(self._info.unet_config),
        }

    def _decide(self, *, worth_compiling: bool) -> ComputeDecision:
        sampling = self._setup.spec.sampling
        return decide_compute(
            precision=sampling.precision,
            prediction=self._info.diffusion_config.prediction,
            compile_request=sampling.compile,
            num_threads=threads_of(self._setup.cpus),
            worth_compiling=worth_compiling,
            fits_tiles=fits_tiles(self._info.unet_config, sampling.images_per_pass),
            tiles_obstacle=tiles_obstacle(self._info.diffusion_config),
            own_network=network_name(self._info.unet_config),
            kernel_folder=kernel_folder(),
            device_kind="cuda" if self._setup.uses_gpu else "cpu",
        )

    def _drawing(
        self, model: GenerativeNetwork, compute: ComputeDecision, config: SamplingConfig
    ) -> Drawing:
        """Put a network where it computes, and say how it is asked."""
        return Drawing(
            network=build_denoiser(model, compute),
            diffusion=build_diffusion(self._info, compute.device),
            config=config,
            rule=self._rule,
            null_label=model.null_label,
        )

    def _estimate_s(self, compute: ComputeDecision) -> float:
        """Return about how long an eager fleet would take, from one pass of the network."""
        spec = self._setup.spec
        set_up_process(compute)
        # Of a copy: what is decided may be another precision, proposed by another worker.
        drawing = self._drawing(copy.deepcopy(self._model), compute, spec.sampling)
        denoiser = drawing.denoiser(0)
        self._pass_once(denoiser, compute.device)
        began_at = time.monotonic()
        self._pass_once(denoiser, compute.device)
        pass_s = time.monotonic() - began_at
        num_microbatches = -(-spec.num_samples // spec.sampling.microbatch_size)
        return pass_s * spec.sampling.num_evaluations * num_microbatches / self._setup.num_workers

    def _pass_once(self, denoiser: Denoiser, device: torch.device) -> None:
        """Send an empty microbatch through the network, and wait for it."""
        size = self._setup.spec.sampling.microbatch_size
        x = torch.zeros((size, *self._info.image_shape), device=device)
        denoiser(x, torch.zeros(size, dtype=torch.int64, device=device)).cpu()

    def begin(self, decisions: Decisions) -> list[str]:
        """Build the network as decided, compiled if so: once on a machine.

        Returns:
            What differs here and may change the last bits: another kind of hardware, ...

        Raises:
            BadInputError: This worker cannot honour what was decided for the job.
        """
        decided = SET_DECISIONS.of(decisions.values)
        compute = ComputeDecision.from_json(decided.compute)
        here = honoured_environment(decided, compute, self._setup.uses_gpu)
        if decided.model.commit_sha256 != self._setup.model.commit_sha256:
            raise BadInputError(
                f"the set was begun from {decided.model.commit_key}, "
                f"not from {self._setup.model.commit_key}; submit under a new --id"
            )
        if change := network_change(decisions.values, self._info.unet_config):
            raise BadInputError(f"the set was begun with {change}; submit under a new --id")
        self._origin = origin_of(decisions)
        set_up_process(compute)
        spec, info = self._setup.spec, self._info
        self._rule = decided.labels
        drawing = self._drawing(self._model, compute, recorded_sampling(decided, info))
        if compute.compiled:
            compile_in_turn(
                self._origin.decisions_sha256,
                lambda: self._pass_once(drawing.denoiser(0), compute.device),
            )
        self._sampler = ShardSampler(
            drawing.denoiser,
            drawing.diffusion,
            drawing.config,
            info.image_shape,
            compute.device,
            num_filmed=min(spec.sampling.trajectory, spec.num_samples),
        )
        smoke_drawing(self._sampler.hasty(SMOKE_STEPS), self._put_data, self._shards)
        change = network_change(info.fixed, info.unet_config)
        return [
            *([f"the model was trained with {change}"] if change else []),
            *(
                f"{name} was {was} and is {here[name]} on {platform.node()}"
                for name, was in (("torch", decided.torch), ("hardware", decided.hardware))
                if was != here[name]
            ),
        ]

    def compute(self, task: ShardTask, watch: Watch) -> Result:
        """Draw a shard, from where an earlier worker left it if it did."""
        unfinished = None
        if task.partial:
            unfinished = load_partial(self._store, task.partial, task.shard, self._origin)
        return self._sampler.draw(unfinished or UnfinishedShard(shard=task.shard), watch)

    def keep(self, task: ShardTask, result: Result) -> ShardEvent:
        """Commit a drawn shard, or keep a half-drawn one."""
        if result is None:
            return ShardEvent(index=task.shard.index, kind="dropped")
        return outlast_outage(lambda: self._kept(task, result), Backoff(), self._abandon)

    def _kept(self, task: ShardTask, result: DrawnShard | UnfinishedShard) -> ShardEvent:
        index = task.shard.index
        if isinstance(result, UnfinishedShard):
            partial = save_partial(self._store, self._paths, result, self._origin)
            if partial and task.partial:
                self._store.delete(task.partial)
            return ShardEvent(index=index, kind="halved", partial=partial or task.partial or None)
        own = self._put_data(result)
        standing = self._shards.commit(own)
        if task.partial:
            self._store.delete(task.partial)
        return ShardEvent(
            index=index,
            kind="committed",
            is_own=standing.data_key == own.data_key,
        )

    def _put_data(self, drawn: DrawnShard) -> ShardCommit:
        shard, spec = drawn.shard, self._setup.spec
        folder = self._paths.data(f"shard-{shard.index:06d}-{secrets.token_hex(6)}")
        labels = self._rule.of(shard.start, shard.stop) if self._rule else None
        body = encode_shard(drawn.pixels, shard.start, spec.format, labels)
        data_key = f"{folder}shard-{shard.index:06d}.{suffix_of(spec.format)}"
        self._store.put(data_key, body)
        frames_key = ""
        if drawn.frames is not None:
            frames_key = f"{folder}frames.npy"
            self._store.put(frames_key, encode_array(drawn.frames))
        height, width, channels = drawn.pixels.shape[1:]
        return ShardCommit(
            index=shard.index,
            start=shard.start,
            stop=shard.stop,
            data_key=data_key,
            size_bytes=len(body),
            sha256=hash_bytes(body),
            pixel_sha256=hash_pixels(drawn.pixels),
            image_shape=(height, width, channels),
            format=spec.format,
            origin=self._origin,
            attempt=self._setup.attempt,
            worker=self._worker,
            seconds=drawn.seconds,
            frames_key=frames_key,
            labels_sha256="" if labels is None else hash_labels(labels.tolist()),
        )
