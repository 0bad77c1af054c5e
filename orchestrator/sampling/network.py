"""The network of a sample job where it computes, and what besides it fixes bits."""

import platform
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

import ddpm
from ddpm.bits import BITS_VERSION, bits_version_of
from ddpm.compute import ComputeDecision, compile_obstacle
from ddpm.config import SamplingConfig
from ddpm.network.generative import GenerativeNetwork
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.guidance import guided
from ddpm.training.checkpoint_info import CheckpointInfo
from orchestrator.artifacts.checkpoints.resolve import code_sha256
from orchestrator.artifacts.samples.decisions import SetDecisions
from orchestrator.artifacts.samples.labels import NO_CLASS, LabelRule
from orchestrator.errors import BadInputError


def build_denoiser(
    model: GenerativeNetwork, compute: ComputeDecision
) -> Callable[..., torch.Tensor]:
    """Put a network where it computes, as was decided; bf16 holds its weights in bfloat16.

    Those of another package's network stay as they are, since nobody knows of which types its
    layers are: there bf16 is autocast, as in its training.

    Returns:
        A `Denoiser`, which also takes labels where the network has some.
    """
    if compute.precision == "bf16" and not model.is_own:
        model.to(torch.bfloat16)
    compute.place(model)
    network = compute.network(model, replayed=not model.is_own)
    is_replayed = compute.compiled and compute.device_kind == "cuda" and not model.is_own
    casts = compute.autocast if model.is_own else nullcontext

    def denoise(x_t: torch.Tensor, t: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        # One layout in all cases, so that a chain which goes on meets the same kernels.
        with torch.no_grad(), casts():
            output = network(x_t.contiguous(memory_format=compute.memory_format), t, *labels)
        return output.clone() if is_replayed else output  # the next replay overwrites it

    return denoise


@dataclass(frozen=True)
class Drawing:
    """How a job's network is asked for the images from a number on.

    Attributes:
        network: As `build_denoiser` gives it.
        diffusion: On its device.
        config: The sampler.
        rule: Which image has which label; None for a set without.
        null_label: What the network takes for no class.
    """

    network: Callable[..., torch.Tensor]
    diffusion: GaussianDiffusion
    config: SamplingConfig
    rule: LabelRule | None
    null_label: int

    def denoiser(self, start: int) -> Denoiser:
        """Return the network as it draws a microbatch that begins with image `start`."""
        if self.rule is None:
            return self.network
        labels = torch.from_numpy(self.rule.of(start, start + self.config.microbatch_size))
        labels = labels.masked_fill(labels == NO_CLASS, self.null_label)
        labels = labels.to(self.diffusion.betas.device)
        return guided(self.network, self.diffusion, self.config, labels, self.null_label)


def build_diffusion(info: CheckpointInfo, device: torch.device) -> GaussianDiffusion:
    """Return a checkpoint's diffusion on a device."""
    return GaussianDiffusion(info.diffusion_config).to(device)


def recorded_sampling(decided: SetDecisions, info: CheckpointInfo) -> SamplingConfig:
    """Return the sampler that was decided for a set, whichever version decided it.

    Fields that it did not know have their defaults, which are its own ways. It left ddpm's variance
    open where none was named, and took the model's for chains of any length.
    """
    known = {field.name for field in fields(SamplingConfig)}
    recorded: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in decided.sampling.items()
        if key in known
    }
    config = SamplingConfig(**recorded)
    if config.method == "ddpm" and config.variance is None:
        return replace(config, variance=info.diffusion_config.variance)
    return config


def environment(compute: ComputeDecision) -> dict[str, str | int]:
    """Return what else fixes bits: the arithmetic, torch, and the kind of hardware.

    The hash of the sources stands beside it as information.
    """
    if compute.device_kind == "cuda":
        hardware = torch.cuda.get_device_name(compute.device)
    else:
        hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    code = code_sha256(Path(str(ddpm.__file__)).parent)
    return {
        "bits_version": BITS_VERSION,
        "code_sha256": code,
        "torch": torch.__version__,
        "hardware": hardware,
    }


def honoured_environment(
    decided: SetDecisions, compute: ComputeDecision, uses_gpu: bool
) -> dict[str, str | int]:
    """Make sure that this worker can honour what was decided; return its own `environment`.

    Raises:
        BadInputError: It cannot; the message says what is to be done.
    """
    if (compute.device_kind == "cuda") != uses_gpu:
        raise BadInputError(
            f"the set was begun on {compute.device_kind}, which this worker does not have; "
            "go on with the same resources, or submit under a new --id"
        )
    here = environment(compute)
    if bits_version_of(vars(decided)) != BITS_VERSION:
        raise BadInputError(
            f"the set was begun with code that computes other bits ({_code_of(decided)}) than "
            f"this (bits version {BITS_VERSION}); go on with that code, or submit under a new --id"
        )
    obstacle = compile_obstacle(compute.device_kind) if compute.compiled else None
    if obstacle is not None:
        raise BadInputError(f"the set was begun with a compiled network, but {obstacle} here")
    return here


def _code_of(decided: SetDecisions) -> str:
    version = bits_version_of(vars(decided))
    known = f"bits version {version}" if version is not None else "of an unknown version"
    return f"{known}, sources {decided.code_sha256[:12]}"
