"""A sample worker on its way to its first shard: the model is loaded, then all is as decided."""

import copy
import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch

from ddpm.compute import ComputeDecision, Workload, compile_obstacle, decide_compute
from ddpm.config import SamplingConfig
from ddpm.errors import CheckpointFormatError
from ddpm.network.generative import GenerativeNetwork
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.steps import plan_steps, settled
from ddpm.training.checkpoint import load_model
from ddpm.training.checkpoint_info import CheckpointInfo
from orchestrator.artifacts.checkpoints.own_code import network_change, network_decision
from orchestrator.artifacts.checkpoints.resolve import fetch_model
from orchestrator.artifacts.samples.commits import origin_of
from orchestrator.artifacts.samples.decisions import SET_DECISIONS, SetDecisions
from orchestrator.artifacts.samples.labels import LabelRule, make_rule
from orchestrator.attempts.compile_turn import compile_in_turn
from orchestrator.attempts.compute import kernel_folder, set_up_process, threads_of
from orchestrator.errors import BadInputError, CheckpointError
from orchestrator.jobs.decisions import Decisions
from orchestrator.sampling.drawing import ShardSampler
from orchestrator.sampling.network import (
    Drawing,
    build_denoiser,
    build_diffusion,
    environment,
    honoured_environment,
    recorded_sampling,
)
from orchestrator.sampling.setup import StoreSetup
from orchestrator.sampling.worker import SampleWorker
from orchestrator.store.objects import ObjectStore

_WORTH_COMPILING_S = 300.0


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network of the store in this process.

    Attributes:
        model: The network, as it was loaded.
        info: What its checkpoint says of it.
        rule: Which image would have which label; None for a set without.
    """

    model: GenerativeNetwork
    info: CheckpointInfo
    rule: LabelRule | None

    @classmethod
    def load(cls, store: ObjectStore, setup: StoreSetup) -> Self:
        """Fetch the checkpoint and see that the sampler fits it.

        Raises:
            CheckpointError: The checkpoint is gone or damaged.
            ConfigError: The sampler does not fit the model.
        """
        local = fetch_model(store, setup.model)
        try:
            model, info = load_model(local.folder, weights=setup.model.weights)
        except CheckpointFormatError as error:
            raise CheckpointError(f"{setup.model.commit_key} does not fit: {error}") from error
        sampling = setup.spec.sampling
        plan_steps(sampling, GaussianDiffusion(info.diffusion_config))
        names = info.class_names
        return cls(
            model=model, info=info, rule=make_rule(sampling, info.unet_config.known_classes, names)
        )

    def drawing(
        self,
        model: GenerativeNetwork,
        compute: ComputeDecision,
        config: SamplingConfig,
        rule: LabelRule | None,
    ) -> Drawing:
        """Put this network or a copy of it where it computes, and say how it is asked."""
        return Drawing(
            network=build_denoiser(model, compute),
            diffusion=build_diffusion(self.info, compute.device),
            config=config,
            rule=rule,
            null_label=model.null_label,
        )

    def pass_once(self, denoiser: Denoiser, device: torch.device, num_images: int) -> None:
        """Send an empty microbatch through the network, and wait for it."""
        x = torch.zeros((num_images, *self.info.image_shape), device=device)
        denoiser(x, torch.zeros(num_images, dtype=torch.int64, device=device)).cpu()


class PreparedSampler:
    """A sample worker that has loaded its model.

    Args:
        store: Where the model is, and shards go.
        setup: What is asked.
        worker: Its name in commits.
        decisions: What was decided for the job; None where this is the first attempt.

    Attributes:
        proposal: How this machine would draw; nothing where that is decided.

    Raises:
        CheckpointError: The checkpoint is gone or damaged.
        ConfigError: The sampler does not fit the model.
    """

    def __init__(
        self, store: ObjectStore, setup: StoreSetup, worker: str, decisions: Decisions | None
    ) -> None:
        self._store = store
        self._setup = setup
        self._worker = worker
        self._loaded = LoadedModel.load(store, setup)
        self.proposal = Decisions() if decisions else propose(setup, self._loaded)

    def begin(self, decisions: Decisions) -> SampleWorker:
        """Build the network as decided, compiled if so: once on a machine; and try it out.

        Raises:
            BadInputError: This worker cannot honour what was decided for the job.
        """
        decided = SET_DECISIONS.of(decisions.values)
        compute = ComputeDecision.from_json(decided.compute)
        here = honoured_environment(decided, compute, self._setup.uses_gpu)
        self._check_same_model(decided, decisions)
        origin = origin_of(decisions)
        set_up_process(compute)
        sampler = self._sampler(decided, compute, origin.decisions_sha256)
        worker = SampleWorker(
            self._store,
            self._setup,
            self._worker,
            sampler=sampler,
            origin=origin,
            rule=decided.labels,
            remarks=self._remarks(decided, here),
        )
        worker.try_out()
        return worker

    def _sampler(
        self, decided: SetDecisions, compute: ComputeDecision, decisions_sha256: str
    ) -> ShardSampler:
        """Put the network where it computes, compiled if that was decided."""
        loaded, spec = self._loaded, self._setup.spec
        config = recorded_sampling(decided, loaded.info)
        drawing = loaded.drawing(loaded.model, compute, config, decided.labels)
        if compute.compiled:
            size = spec.sampling.microbatch_size
            compile_in_turn(
                decisions_sha256,
                lambda: loaded.pass_once(drawing.denoiser(0), compute.device, size),
            )
        return ShardSampler(
            drawing.denoiser,
            drawing.diffusion,
            drawing.config,
            loaded.info.image_shape,
            compute.device,
            num_trajectories=min(spec.sampling.trajectory, spec.num_samples),
        )

    def _check_same_model(self, decided: SetDecisions, decisions: Decisions) -> None:
        if decided.model.commit_sha256 != self._setup.model.commit_sha256:
            raise BadInputError(
                f"the set was begun from {decided.model.commit_key}, "
                f"not from {self._setup.model.commit_key}; submit under a new --id"
            )
        if change := network_change(decisions.values, self._loaded.info.unet_config):
            raise BadInputError(f"the set was begun with {change}; submit under a new --id")

    def _remarks(self, decided: SetDecisions, here: Mapping[str, str | int]) -> list[str]:
        info = self._loaded.info
        change = network_change(info.fixed, info.unet_config)
        return [
            *([f"the model was trained with {change}"] if change else []),
            *(
                f"{name} was {was} and is {here[name]} on {platform.node()}"
                for name, was in (("torch", decided.torch), ("hardware", decided.hardware))
                if was != here[name]
            ),
        ]


def propose(setup: StoreSetup, loaded: LoadedModel) -> Decisions:
    """Return how this machine would draw a set."""
    sampling, info = setup.spec.sampling, loaded.info
    compute = first = _decide(setup, info, worth_compiling=False)
    may_compile = sampling.compile == "auto" and first.kernels == "torch"
    if may_compile and compile_obstacle(first.device_kind) is None:
        seconds = _estimate_s(setup, loaded, first)
        compute = _decide(setup, info, worth_compiling=seconds > _WORTH_COMPILING_S)
    return Decisions(
        {
            "compute": compute.to_json(),
            "model": dataclasses.asdict(setup.model),
            "sampling": dataclasses.asdict(settled(sampling, info.diffusion_config)),
            "image_shape": list(info.image_shape),
            "num_samples": setup.spec.num_samples,
            "shard_size": setup.spec.shard_size,
            **({"labels": loaded.rule.to_json()} if loaded.rule else {}),
            **environment(first),
            **network_decision(info.unet_config),
        }
    )


def _decide(setup: StoreSetup, info: CheckpointInfo, *, worth_compiling: bool) -> ComputeDecision:
    sampling = setup.spec.sampling
    work = Workload(
        network=info.unet_config,
        diffusion=info.diffusion_config,
        images_per_pass=sampling.images_per_pass,
    )
    return decide_compute(
        work,
        precision=sampling.precision,
        compile_request=sampling.compile,
        num_threads=threads_of(setup.cpus),
        worth_compiling=worth_compiling,
        kernel_folder=kernel_folder(),
        device_kind="cuda" if setup.uses_gpu else "cpu",
    )


def _estimate_s(setup: StoreSetup, loaded: LoadedModel, compute: ComputeDecision) -> float:
    """Return about how long an eager fleet would take, from one pass of the network."""
    spec = setup.spec
    size = spec.sampling.microbatch_size
    set_up_process(compute)
    # Of a copy: what is decided may be another precision, proposed by another worker.
    copied = copy.deepcopy(loaded.model)
    denoiser = loaded.drawing(copied, compute, spec.sampling, loaded.rule).denoiser(0)
    loaded.pass_once(denoiser, compute.device, size)
    began_at = time.monotonic()
    loaded.pass_once(denoiser, compute.device, size)
    pass_s = time.monotonic() - began_at
    num_microbatches = -(-spec.num_samples // size)
    return pass_s * spec.sampling.num_evaluations * num_microbatches / setup.num_workers
