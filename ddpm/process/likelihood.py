"""The variational bound on -log p(x_0) in bits per dimension, and each of its terms.

L = L_T + the sum of L_{t-1} + L_0 (Ho et al. 2020, eq. 5). A dimension is one channel of one
pixel, and the bound is divided by their number and by ln 2. In 0-based timesteps, L_{t-1} runs
over t = 1..T-1, and L_0 belongs to t = 0. The noise of image k at timestep t is a function of
(seed, k, t), so a value doesn't depend on the batch that it was computed in.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.config import ConfigError
from ddpm.process.code_length import (
    NUM_LEVELS,
    discretized_gaussian_log_likelihood,
    gaussian_divergence,
)
from ddpm.process.gaussian import Denoiser, GaussianDiffusion, model_log_variance
from ddpm.process.noise import Stream, random_words, sample_noise


@dataclass(frozen=True, eq=False)
class BitsPerDimension:
    """The bound of each image of a batch and its terms, in bits per dimension.

    Attributes:
        prior: (B,) float64, L_T.
        decoder: (B,) float64, L_0.
        timesteps: (B, N) int64, the t in [1, T) whose L_{t-1} was computed; column j was drawn
            from the j-th stratum.
        terms: (B, N) float64, L_{t-1} of those.
        stratum_sizes: (N,) int64, how many timesteps each column stands for; they sum to T - 1.
    """

    prior: Tensor
    decoder: Tensor
    timesteps: Tensor
    terms: Tensor
    stratum_sizes: Tensor

    @property
    def denoising(self) -> Tensor:
        """(B,) float64: the sum of L_{t-1} over all t, or an unbiased estimate of it."""
        return (self.terms * self.stratum_sizes).sum(dim=1)

    @property
    def total(self) -> Tensor:
        """(B,) float64: the bound."""
        return self.prior + self.denoising + self.decoder


def mean_and_error(values: Tensor) -> tuple[float, float | None]:
    """Return the mean over images and its standard error; None of one image.

    The error holds both what the images differ and what the drawn timesteps and noise add.

    Args:
        values: (B,) float64.
    """
    mean = float(values.mean())
    return mean, float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None


def bits_per_dim(  # noqa: PLR0913  # what is measured, and of what
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    indices: Tensor,
    *,
    seed: int,
    num_timesteps: int | None = None,
    clip_denoised: bool = True,
    num_levels: int | None = NUM_LEVELS,
) -> BitsPerDimension:
    """Compute the bound for a batch, one pass of the network for each of `num_timesteps`.

    Args:
        denoiser: The network.
        diffusion: The model's diffusion, on x_start's device.
        x_start: (B, C, H, W) float32, one of `num_levels` values from -1 to 1 in each pixel.
        indices: (B,) int64, the images' numbers, which their noise and timesteps belong to.
        seed: A 64-bit integer.
        num_timesteps: How many of the T timesteps are evaluated for each image, 2 to T; None
            takes all, and a chain of one step has no others. With fewer than T the result is
            unbiased: t = 0 always takes part, and one t is drawn from each of as many strata of
            the others.
        clip_denoised: Clip the predicted x_start to [-1, 1].
        num_levels: How many values a pixel may have; None for real numbers, which have no L_0:
            then it is 0, and the bound is that of the other terms.

    Returns:
        The bound and its terms.

    Raises:
        ConfigError: `num_timesteps` is out of range.
    """
    drawn, sizes = evaluation_timesteps(seed, indices, num_timesteps, diffusion.num_timesteps)
    columns = [torch.zeros_like(indices), *drawn.unbind(dim=1)]
    decoder, *terms = _term_of_each(
        denoiser, diffusion, x_start, indices, columns, seed, clip_denoised, num_levels
    )
    return BitsPerDimension(
        prior=prior_bpd(diffusion, x_start),
        decoder=decoder,
        timesteps=drawn,
        terms=torch.stack(terms, dim=1) if terms else decoder.new_zeros(drawn.shape),
        stratum_sizes=sizes,
    )


def evaluation_timesteps(
    seed: int, indices: Tensor, num_timesteps: int | None, total_timesteps: int
) -> tuple[Tensor, Tensor]:
    """Draw for each image the timesteps whose L_{t-1} is computed, one from each stratum.

    The strata are narrow where t is small and widen with it (their edges grow as cubes), as
    L_{t-1} falls about as 1/t: strata of one size would make the estimate stray far more.

    Args:
        seed: A 64-bit integer.
        indices: (B,) int64, the images' numbers.
        num_timesteps: Timesteps evaluated for each image, t = 0 included; None takes all.
        total_timesteps: T.

    Returns:
        The timesteps, (B, num_timesteps - 1) int64 in [1, T), and the strata's sizes, which sum
        to T - 1.

    Raises:
        ConfigError: `num_timesteps` is not in [2, T].
    """
    if total_timesteps == 1 and num_timesteps in (None, 1):
        return indices.new_zeros((len(indices), 0)), indices.new_zeros(0)
    chosen = total_timesteps if num_timesteps is None else num_timesteps
    if not 2 <= chosen <= total_timesteps:
        raise ConfigError("num_timesteps", chosen, f"in [2, {total_timesteps}]")
    numbers = torch.arange(chosen, device=indices.device)
    edges = torch.maximum((total_timesteps - 1) * numbers**3 // (chosen - 1) ** 3, numbers) + 1
    sizes = edges.diff()
    words = random_words(seed, Stream.EVALUATION_TIMESTEP, indices, 0, chosen - 1)[0]
    return edges[:-1] + ((words * sizes) >> 32), sizes


def prior_bpd(diffusion: GaussianDiffusion, x_start: Tensor) -> Tensor:
    """Return L_T = KL(q(x_T | x_0) || N(0, I)), which no weight of the network can change.

    Args:
        diffusion: The model's diffusion.
        x_start: (B, C, H, W) float32 in [-1, 1].

    Returns:
        (B,) float64 in bits per dimension. Ho et al. 2020, section 3.1.
    """
    kept = float(diffusion.schedule.alphas_cumprod[-1])
    power = x_start.to(torch.float64).square().flatten(1).mean(dim=1)
    return 0.5 * (kept * (power - 1.0) - math.log1p(-kept)) / math.log(2.0)


def denoising_bpd(
    diffusion: GaussianDiffusion,
    pred_xstart: Tensor,
    x_start: Tensor,
    t: Tensor,
    log_variance: Tensor | None = None,
) -> Tensor:
    """Return L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t >= 1.

    Both means weigh the same x_t alike, so they differ by posterior_mean_coef1 times what the
    prediction of x_0 is off, and x_t itself is not needed.

    Args:
        diffusion: The model's diffusion.
        pred_xstart: (B, C, H, W) float32, the network's x_0.
        x_start: (B, C, H, W) float32 in [-1, 1].
        t: (B,) int64 in [1, T).
        log_variance: Of the reverse step; None takes the fixed one.

    Returns:
        (B,) float64 in bits per dimension. Ho et al. 2020, eq. 5 and 8.
    """
    schedule = diffusion.schedule
    if log_variance is None:
        fixed = model_log_variance(schedule, diffusion.config.variance)
        log_variance = _column(fixed, t)
    error = x_start.to(torch.float64) - pred_xstart
    divergence = gaussian_divergence(
        _column(schedule.posterior_log_variance_clipped, t),
        log_variance.to(torch.float64),
        _column(schedule.posterior_mean_coef1, t) * error,
    )
    return divergence.flatten(1).mean(dim=1) / math.log(2.0)


def decoder_bpd(
    diffusion: GaussianDiffusion,
    pred_xstart: Tensor,
    x_start: Tensor,
    log_variance: Tensor | None = None,
    num_levels: int = NUM_LEVELS,
) -> Tensor:
    """Return L_0 = -log p(x_0 | x_1): the code length of a pixel's values under the last step.

    Args:
        diffusion: The model's diffusion.
        pred_xstart: (B, C, H, W) float32, the network's x_0 at t = 0, which is that step's mean.
        x_start: (B, C, H, W) float32, one of the values in each pixel.
        log_variance: Of the last step; None takes the fixed one.
        num_levels: How many values there are, evenly from -1 to 1.

    Returns:
        (B,) float64 in bits per dimension. Ho et al. 2020, section 3.3.
    """
    scale: float | Tensor
    if log_variance is None:
        fixed = model_log_variance(diffusion.schedule, diffusion.config.variance)[0]
        scale = math.exp(0.5 * float(fixed))
    else:
        scale = torch.exp(0.5 * log_variance.to(torch.float64))
    log_likelihood = discretized_gaussian_log_likelihood(x_start, pred_xstart, scale, num_levels)
    return -log_likelihood.flatten(1).mean(dim=1) / math.log(2.0)


@torch.no_grad()
def _term_of_each(  # noqa: PLR0913  # its own step of `bits_per_dim`
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    indices: Tensor,
    columns: list[Tensor],
    seed: int,
    clip_denoised: bool,
    num_levels: int | None,
) -> Iterator[Tensor]:
    """Yield the term of each column of timesteps: L_0 for the first, which is 0, then L_{t-1}."""
    for column, t in enumerate(columns):
        if column == 0 and num_levels is None:
            yield torch.zeros(len(x_start), dtype=torch.float64, device=x_start.device)
            continue
        noise = sample_noise(seed, indices, t, x_start.shape[1:], stream=Stream.EVALUATION_NOISE)
        x_t = diffusion.q_sample(x_start, t, noise)
        model_output = denoiser(x_t, t).to(torch.float32)
        pred_xstart = diffusion.predict_xstart(model_output, x_t, t)
        if clip_denoised:
            pred_xstart = pred_xstart.clamp(-1.0, 1.0)
        learned = None
        if diffusion.has_learned_variance:
            learned = diffusion.log_variance(model_output, t)
        if column == 0:
            yield decoder_bpd(diffusion, pred_xstart, x_start, learned, num_levels or NUM_LEVELS)
        else:
            yield denoising_bpd(diffusion, pred_xstart, x_start, t, learned)


def _column(table: Tensor, t: Tensor) -> Tensor:
    """Look up (T,) float64 coefficients for (B,) timesteps, shaped to meet images."""
    return table.to(t.device)[t].view(-1, 1, 1, 1)
