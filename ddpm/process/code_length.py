"""Two terms of the bound, as functions of the distributions alone, in nats for each pixel.

They serve the bound itself and the loss of a learned variance, so they have gradients.
"""

import math

import torch
from torch import Tensor

NUM_LEVELS = 256  # of 8-bit images
_MAX_LOG_CDF_GAP = -1e-300


def gaussian_divergence(
    posterior_log_variance: Tensor, log_variance: Tensor, mean_error: Tensor
) -> Tensor:
    """Return the Kullback-Leibler divergence of two normal distributions, for each pixel.

    Args:
        posterior_log_variance: Of the first: (B, 1, 1, 1).
        log_variance: Of the second: (B, 1, 1, 1) or (B, C, H, W).
        mean_error: (B, C, H, W), how far their means are apart.

    Returns:
        (B, C, H, W) in nats.
    """
    log_ratio = posterior_log_variance - log_variance
    spread = log_ratio.exp() - 1.0 - log_ratio
    return 0.5 * (spread + mean_error.square() * torch.exp(-log_variance))


def discretized_gaussian_log_likelihood(
    x: Tensor, mean: Tensor, scale: float | Tensor, num_levels: int = NUM_LEVELS
) -> Tensor:
    """Return the log of the mass that a normal distribution puts on the bin of each value.

    The bin of a value reaches half-way to its neighbours; that of -1 reaches to minus infinity,
    that of 1 to infinity, so the masses of all values sum to 1.

    Args:
        x: (B, C, H, W), each one of the values; of 256 that is k / 127.5 - 1.
        mean: (B, C, H, W).
        scale: The standard deviation, or one for each pixel.
        num_levels: How many values there are, evenly from -1 to 1.

    Returns:
        (B, C, H, W) float64. Ho et al. 2020, eq. 13.
    """
    half_bin, half = 1.0 / (num_levels - 1), (num_levels - 1) / 2
    x = ((x.to(torch.float64) + 1.0) * half).round() / half - 1.0  # float32 is a little off
    mean = mean.to(torch.float64)
    lower = ((x - half_bin - mean) / scale).masked_fill(x < -1.0 + half_bin, -math.inf)
    upper = ((x + half_bin - mean) / scale).masked_fill(x > 1.0 - half_bin, math.inf)
    # In the upper tail both cumulative masses round to 1; there the mirrored bin has the same
    # mass, and its two are small numbers far apart.
    mirrored = lower > 0.0
    near = torch.where(mirrored, -lower, upper)
    far = torch.where(mirrored, -upper, lower)
    log_near: Tensor = torch.special.log_ndtr(near)
    log_far: Tensor = torch.special.log_ndtr(far)
    gap = (log_far - log_near).clamp(max=_MAX_LOG_CDF_GAP)
    return log_near + torch.log(-torch.expm1(gap))
