"""Drawing images with the reverse process: DDPM (Ho et al. 2020) and DDIM (Song et al. 2020).

A chain visits some or all of the T timesteps. Both methods are the same loop: the network's
output gives x_0, and the next image is a weighted sum of that x_0, the present image and fresh
noise; only the three weights differ, and they are known before the chain begins. Steps are counted
from 0 (x_T, pure noise) to `num_steps` (x_0). As the noise of image k at timestep t is a function
of (seed, k, t), a chain that was stopped after any step goes on from its image and that count.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.config import DiffusionConfig, SamplingConfig
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.noise import Stream, sample_noise
from ddpm.process.spacing import sampling_timesteps

# Values, each some tens of bytes while it is made: what a cache holds, and what keeps a GPU busy.
_NOISE_AT_ONCE = {"cpu": 2**16, "cuda": 2**20}


class ChainState(NamedTuple):
    """Where a batch of chains stands.

    Attributes:
        x: (B, C, H, W) float32.
        step_index: Reverse steps done: 0 for x_T, the chain's number of steps for x_0.
    """

    x: Tensor
    step_index: int


class StepCoefficients(NamedTuple):
    """One reverse step: x_prev = xstart_weight x_0 + x_weight x_t + noise_scale z.

    Attributes:
        timestep: The model's own number of the step, in [0, T).
        xstart_weight: The weight of the predicted x_0.
        x_weight: The weight of x_t.
        noise_scale: sigma, the standard deviation of the fresh noise; 0 at the last step.
    """

    timestep: int
    xstart_weight: float
    x_weight: float
    noise_scale: float


def settled(config: SamplingConfig, diffusion: DiffusionConfig) -> SamplingConfig:
    """Return a sampler that says all of itself: ddpm's variance, where none was named.

    It is the model's for the whole chain. A shorter one takes "fixed_small": its betas are large,
    and with them as variances as much noise is left as is taken away.
    """
    if config.method != "ddpm" or config.variance is not None:
        return config
    is_whole = config.num_steps >= diffusion.num_timesteps
    return replace(config, variance=diffusion.variance if is_whole else "fixed_small")


def step_coefficients(
    config: SamplingConfig, diffusion: GaussianDiffusion
) -> list[StepCoefficients]:
    """Compute the weights of every step of a chain in float64, in the order they are taken.

    Args:
        config: The sampler.
        diffusion: The model's diffusion.

    Returns:
        One entry for each reverse step; the first leaves x_T.

    Raises:
        ConfigError: More steps are asked for than there are.
    """
    timesteps = sampling_timesteps(config, diffusion.num_timesteps)
    weigh = _ddim_weights if config.method == "ddim" else _ddpm_weights
    tables = [table.tolist() for table in weigh(config, diffusion, timesteps)]
    steps = [StepCoefficients(*row) for row in zip(timesteps, *tables, strict=True)]
    return steps[::-1]


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
    steps = step_coefficients(config, diffusion)
    indices = indices.to(device or indices.device)
    if start is None:
        start = ChainState(initial_noise(config.seed, indices, shape), 0)
    if start.x.shape != (len(indices), *shape) or not 0 <= start.step_index <= len(steps):
        raise ValueError(
            f"a chain of {len(steps)} steps over {len(indices)} images can't go on from step"
            f" {start.step_index} of images of shape {tuple(start.x.shape)}"
        )
    x = start.x.to(indices.device)
    yield ChainState(x, start.step_index)
    remaining = steps[start.step_index :]
    noises = _chain_noise(config.seed, indices, shape, remaining)
    for step_index, step in enumerate(remaining, start=start.step_index):
        x = _reverse_step(denoiser, diffusion, config, x, step, next(noises))
        yield ChainState(x, step_index + 1)


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
    seed: int, indices: Tensor, shape: Sequence[int], steps: Sequence[StepCoefficients]
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
    x: Tensor,
    step: StepCoefficients,
    noise: Tensor | None,
) -> Tensor:
    t = torch.full((len(x),), step.timestep, dtype=torch.int64, device=x.device)
    model_output = denoiser(x, t).to(torch.float32)
    pred_xstart = diffusion.predict_xstart(model_output, x, t)
    kept = pred_xstart
    if config.clip_denoised:
        pred_xstart = pred_xstart.clamp(-1.0, 1.0)
    x_prev = step.xstart_weight * pred_xstart + step.x_weight * x
    if config.clip_denoised and config.keep_epsilon:
        # x_0's own weight beside the noise is sqrt(alphas_cumprod_prev); this gives the rest back.
        signal = float(diffusion.schedule.sqrt_alphas_cumprod[step.timestep])
        x_prev = x_prev + step.x_weight * signal * (pred_xstart - kept)
    if noise is not None:
        x_prev = x_prev + step.noise_scale * noise
    return x_prev


def _ddpm_weights(
    config: SamplingConfig, diffusion: GaussianDiffusion, timesteps: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of Ho et al. 2020, algorithm 2, on the respaced chain: (S,) float64."""
    schedule = diffusion.schedule.respaced(timesteps)
    variance = settled(config, diffusion.config).variance
    chosen = schedule.betas if variance == "fixed_large" else schedule.posterior_variance
    noise_scale = chosen.sqrt()
    noise_scale[0] = 0.0  # the last step taken is the mean alone
    return schedule.posterior_mean_coef1, schedule.posterior_mean_coef2, noise_scale


def _ddim_weights(
    config: SamplingConfig, diffusion: GaussianDiffusion, timesteps: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of Song et al. 2020, eq. 12 and 16: (S,) float64.

    There x_prev = sqrt(alphas_cumprod_prev) x_0 + sqrt(1 - alphas_cumprod_prev - sigma^2) eps
    + sigma z, where eps is what x_t holds beside x_0, itself a weighted sum of the two.
    """
    schedule = diffusion.schedule.respaced(timesteps)
    previous = schedule.alphas_cumprod_prev
    noise_scale = config.eta * schedule.posterior_variance.sqrt()
    remaining = (1.0 - previous - noise_scale.square()).clamp(min=0.0)
    x_weight = remaining.sqrt() / schedule.sqrt_one_minus_alphas_cumprod
    xstart_weight = previous.sqrt() - x_weight * schedule.sqrt_alphas_cumprod
    return xstart_weight, x_weight, noise_scale
