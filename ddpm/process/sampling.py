"""Drawing images with the reverse process: DDPM, DDIM and solvers of its differential equation.

A chain visits some or all of the T timesteps. All methods are the same loop: the network's output
gives x_0, and the next image is a weighted sum of that x_0, the present image and fresh noise, with
a share of how x_0 has changed since the step before, or will have changed at the next. Only the
weights differ, and they are known before the chain begins (`ddpm.process.steps`). Steps are counted
from 0 (x_T, pure noise) to the last (x_0). As the noise of image k at timestep t is a function of
(seed, k, t), a chain that was stopped after any step goes on from its state and that count.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.config import SamplingConfig
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.noise import Stream, sample_noise
from ddpm.process.steps import PlannedStep, plan_steps

# Values, each some tens of bytes while it is made: what a cache holds, and what keeps a GPU busy.
_NOISE_AT_ONCE = {"cpu": 2**16, "cuda": 2**20}


class ChainState(NamedTuple):
    """Where a batch of chains stands.

    Attributes:
        x: (B, C, H, W) float32.
        step_index: Reverse steps done: 0 for x_T, the chain's number of steps for x_0.
        memory: (B, C, H, W) float32, the x_0 that was predicted at the last step, for methods that
            look back at it; None for others, and at x_T.
    """

    x: Tensor
    step_index: int
    memory: Tensor | None = None

    def on(self, device: torch.device) -> "ChainState":
        """Return the same on a device."""
        memory = self.memory.to(device) if self.memory is not None else None
        return ChainState(self.x.to(device), self.step_index, memory)


def initial_noise(
    seed: int, indices: Tensor, shape: Sequence[int], device: torch.device | str | None = None
) -> Tensor:
    """Return x_T of images k.

    Args:
        seed: The sampler's seed.
        indices: (B,) int64, the images' numbers k.
        shape: Shape of one image, (C, H, W).
        device: Where the noise is made; None takes the indices' device.

    Returns:
        (B, C, H, W) float32, standard normal.
    """
    return sample_noise(seed, indices, 0, shape, device, stream=Stream.CHAIN_START)


def sample_chain(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    config: SamplingConfig,
    indices: Tensor,
    shape: Sequence[int],
    device: torch.device | str | None = None,
    start: ChainState | None = None,
) -> Iterator[ChainState]:
    """Run the reverse process step by step.

    The host never waits for the device here, so a caller that looks at nothing lets it run ahead.

    Args:
        denoiser: The network. It is given the model's own timesteps, however few are visited.
        diffusion: The model's diffusion, on the device.
        config: The sampler.
        indices: (B,) int64, the images' numbers k.
        shape: Shape of one image, (C, H, W).
        device: Where the chain runs; None takes the indices' device.
        start: Where to go on; None begins at x_T.

    Yields:
        The state that it starts from, then the state after each step; the last holds x_0.

    Raises:
        ConfigError: More steps are asked for than the model has.
        ValueError: `start` doesn't belong to this chain.
    """
    steps = plan_steps(config, diffusion)
    indices = indices.to(device or indices.device)
    if start is None:
        start = ChainState(initial_noise(config.seed, indices, shape), 0)
    if start.x.shape != (len(indices), *shape) or not 0 <= start.step_index <= len(steps):
        raise ValueError(
            f"a chain of {len(steps)} steps over {len(indices)} images can't go on from step"
            f" {start.step_index} of images of shape {tuple(start.x.shape)}"
        )
    state = start.on(indices.device)
    if state.memory is None and state.step_index > 0 and steps[0].looks_back:
        raise ValueError(f"a chain of {config.method} can't go on without its memory")
    yield state
    remaining = steps[start.step_index :]
    noises = _chain_noise(config.seed, indices, shape, remaining)
    for step in remaining:
        state = _reverse_step(denoiser, diffusion, config, state, step, next(noises))
        yield state


def draw(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    config: SamplingConfig,
    indices: Tensor,
    shape: Sequence[int],
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw images k from pure noise: the end of `sample_chain`, with the same arguments.

    Returns:
        (B, C, H, W) float32, about in [-1, 1].
    """
    chain = sample_chain(denoiser, diffusion, config, indices, shape, device)
    return deque(chain, maxlen=1).pop().x


def to_uint8(x: Tensor) -> Tensor:
    """Turn images into the bytes that are stored.

    Args:
        x: (B, C, H, W) float32; what lies outside [-1, 1] is clipped.

    Returns:
        (B, H, W, C) uint8, contiguous: round((x + 1) * 127.5).
    """
    pixels = ((x + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous()


def _chain_noise(
    seed: int, indices: Tensor, shape: Sequence[int], steps: Sequence[PlannedStep]
) -> Iterator[Tensor | None]:
    """Yield the fresh noise of each step, (B, C, H, W), or None where a step takes none.

    Making noise is a hundred small operations, whatever its size, so that of small batches is made
    for several steps at once: the same bits, since it is a function of (seed, k, t).
    """
    num_at_once = _NOISE_AT_ONCE[indices.device.type] // (len(indices) * math.prod(shape))
    num_at_once = max(num_at_once, 1)
    for first in range(0, len(steps), num_at_once):
        block = steps[first : first + num_at_once]
        timesteps = [step.timestep for step in block if step.noise_scale > 0.0]
        made = iter(_noise_of_steps(seed, indices, shape, timesteps))
        for step in block:
            yield next(made) if step.noise_scale > 0.0 else None


def _noise_of_steps(
    seed: int, indices: Tensor, shape: Sequence[int], timesteps: Sequence[int]
) -> Sequence[Tensor]:
    if not timesteps:
        return ()
    t = torch.cat([torch.full_like(indices, timestep) for timestep in timesteps])
    return sample_noise(seed, indices.repeat(len(timesteps)), t, shape).chunk(len(timesteps))


@torch.no_grad()
def _reverse_step(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    config: SamplingConfig,
    state: ChainState,
    step: PlannedStep,
    noise: Tensor | None,
) -> ChainState:
    model_output, kept = _asked(denoiser, diffusion, state.x, step.timestep)
    pred_xstart = kept.clamp(-1.0, 1.0) if config.clip_denoised else kept
    x_prev = step.xstart_weight * pred_xstart + step.x_weight * state.x
    if config.keep_epsilon:
        # x_0's own weight beside the noise is sqrt(alphas_cumprod_prev); this gives the rest back.
        signal = float(diffusion.schedule.sqrt_alphas_cumprod[step.timestep])
        x_prev = x_prev + step.x_weight * signal * (pred_xstart - kept)
    if step.memory_weight and state.memory is not None:
        x_prev = x_prev + step.memory_weight * (pred_xstart - state.memory)
    if step.corrector is not None:
        _, ahead = _asked(denoiser, diffusion, x_prev, step.corrector.timestep)
        ahead = ahead.clamp(-1.0, 1.0) if config.clip_denoised else ahead
        x_prev = x_prev + step.corrector.weight * (ahead - pred_xstart)
    if noise is not None:
        x_prev = x_prev + _noise_scale(step, model_output) * noise
    memory = pred_xstart if step.looks_back else None
    return ChainState(x_prev, state.step_index + 1, memory)


def _asked(
    denoiser: Denoiser, diffusion: GaussianDiffusion, x: Tensor, timestep: int
) -> tuple[Tensor, Tensor]:
    """Return the network's output, float32, and the x_0 that it stands for."""
    t = torch.full((len(x),), timestep, dtype=torch.int64, device=x.device)
    model_output = denoiser(x, t).to(torch.float32)
    return model_output, diffusion.predict_xstart(model_output, x, t)


def _noise_scale(step: PlannedStep, model_output: Tensor) -> float | Tensor:
    """Return sigma: of a learned variance, what the network says between its two bounds."""
    if step.log_variances is None:
        return step.noise_scale
    smallest, largest = step.log_variances
    share = (model_output.chunk(2, dim=1)[1] + 1.0) / 2.0
    return torch.exp(0.5 * (share * largest + (1.0 - share) * smallest))
