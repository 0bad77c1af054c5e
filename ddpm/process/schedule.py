"""Noise schedules: the betas of the forward process and all that follows from them, in float64.

Everything here is a float64 tensor on the CPU with one entry for each timestep. `diffusion.py`
casts once what it needs; computed in float32, the derived coefficients would be off by up to 2e-3.
Names and formulas are those of Ho et al. 2020 (section 2) unless a docstring says otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from ddpm.config import ConfigError, DiffusionConfig

_LINEAR_START = 1e-4
_LINEAR_END = 0.02
_REFERENCE_NUM_TIMESTEPS = 1000
_COSINE_OFFSET = 0.008
_COSINE_MAX_BETA = 0.999
_SIGMOID_START, _SIGMOID_END = -3.0, 3.0
_SCALED_START, _SCALED_END = 0.00085, 0.012


def linear_betas(num_timesteps: int) -> Tensor:
    """Return betas that rise linearly: 1e-4 to 0.02 at T = 1000, scaled by 1000/T for other T.

    Args:
        num_timesteps: T, at least 21: below, the last beta would reach 1.

    Returns:
        (T,) float64. Ho et al. 2020, section 4.

    Raises:
        ConfigError: T is too small.
    """
    scale = _REFERENCE_NUM_TIMESTEPS / max(num_timesteps, 1)
    if scale * _LINEAR_END >= 1.0:
        raise ConfigError("num_timesteps", num_timesteps, "at least 21 with linear betas")
    start, end = scale * _LINEAR_START, scale * _LINEAR_END
    return torch.linspace(start, end, num_timesteps, dtype=torch.float64)


def cosine_betas(num_timesteps: int) -> Tensor:
    """Return the betas that make alphas_cumprod fall like a squared cosine, clipped at 0.999.

    Args:
        num_timesteps: T, at least 1.

    Returns:
        (T,) float64. Nichol & Dhariwal 2021, eq. 17, with s = 0.008.

    Raises:
        ConfigError: T is too small.
    """
    if num_timesteps < 1:
        raise ConfigError("num_timesteps", num_timesteps, "at least 1 with cosine betas")
    time = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
    angle = (time + _COSINE_OFFSET) / (1.0 + _COSINE_OFFSET) * (math.pi / 2)
    signal = torch.cos(angle) ** 2
    return (1.0 - signal[1:] / signal[:-1]).clamp(max=_COSINE_MAX_BETA)


def sigmoid_betas(num_timesteps: int) -> Tensor:
    """Return the betas that make alphas_cumprod fall like a sigmoid, clipped at 0.999.

    Args:
        num_timesteps: T, at least 2.

    Returns:
        (T,) float64. Jabri et al. 2022, appendix B, from -3 to 3 with tau = 1.
    """
    time = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
    fallen = torch.sigmoid(_SIGMOID_START + (_SIGMOID_END - _SIGMOID_START) * time)
    signal = (fallen[-1] - fallen) / (fallen[-1] - fallen[0])
    return (1.0 - signal[1:] / signal[:-1]).clamp(max=_COSINE_MAX_BETA)


def scaled_linear_betas(num_timesteps: int) -> Tensor:
    """Return betas whose roots rise linearly: 0.00085 to 0.012 at T = 1000, scaled by 1000/T.

    Args:
        num_timesteps: T, at least 13: below, the last beta would reach 1.

    Returns:
        (T,) float64. Rombach et al. 2022, their released code.
    """
    scale = _REFERENCE_NUM_TIMESTEPS / num_timesteps
    start, end = math.sqrt(scale * _SCALED_START), math.sqrt(scale * _SCALED_END)
    return torch.linspace(start, end, num_timesteps, dtype=torch.float64).square()


def zero_snr_betas(betas: Tensor) -> Tensor:
    """Return the betas rescaled so that nothing of x_0 is left in x_T; the last one is 1.

    Args:
        betas: (T,) float64.

    Returns:
        (T,) float64. Lin et al. 2023, algorithm 1.
    """
    signal = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = signal[0], signal[-1]
    kept = ((signal - last) * (first / (first - last))).square()
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    return 1.0 - kept / before


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The betas of a chain and every coefficient derived from them, each (T,) float64.

    Attributes:
        betas: (T,) float64, each in (0, 1): the variance that step t adds.
        ends_in_noise: Whether the last may be 1, so that nothing of x_0 is left in x_T.
    """

    betas: Tensor
    ends_in_noise: bool = False

    def __post_init__(self) -> None:
        if self.betas.dtype != torch.float64 or self.betas.ndim != 1 or len(self.betas) == 0:
            raise ValueError("betas must be a float64 tensor with one dimension")
        inner = self.betas
        if self.ends_in_noise and bool((inner[-1] == 1.0).all()):
            inner = inner[:-1]
        if not bool(((inner > 0) & (inner < 1)).all()):
            raise ValueError("each beta must be greater than 0 and less than 1")

    @property
    def num_timesteps(self) -> int:
        """T, the length of the chain."""
        return len(self.betas)

    @cached_property
    def alphas(self) -> Tensor:
        """1 - beta_t."""
        return 1.0 - self.betas

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """The product of the alphas up to and including t: the share of x_0's power in x_t."""
        return torch.cumprod(self.alphas, dim=0)

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        """alphas_cumprod of the step before, with 1 before the first."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])

    @cached_property
    def sqrt_alphas_cumprod(self) -> Tensor:
        """The weight of x_0 in x_t. Ho et al. 2020, eq. 4."""
        return self.alphas_cumprod.sqrt()

    @cached_property
    def sqrt_one_minus_alphas_cumprod(self) -> Tensor:
        """The weight of the noise in x_t. Ho et al. 2020, eq. 4."""
        return (1.0 - self.alphas_cumprod).sqrt()

    @cached_property
    def sqrt_recip_alphas_cumprod(self) -> Tensor:
        """The weight of x_t in the x_0 that x_t and its noise give: sqrt(1 / alphas_cumprod)."""
        return (1.0 / self.alphas_cumprod).sqrt()

    @cached_property
    def sqrt_recipm1_alphas_cumprod(self) -> Tensor:
        """The weight of -eps in that x_0: sqrt(1 / alphas_cumprod - 1)."""
        return (1.0 / self.alphas_cumprod - 1.0).sqrt()

    @cached_property
    def posterior_variance(self) -> Tensor:
        """The variance of q(x_{t-1} | x_t, x_0); 0 at the first step. Ho et al. 2020, eq. 7."""
        return self.betas * (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> Tensor:
        """The logarithm of posterior_variance, where the first step takes the value of the second.

        A chain of one step has no second; it takes the logarithm of its beta.
        """
        return self._with_decoder_variance(self.posterior_variance).log()

    @cached_property
    def fixed_large_log_variance(self) -> Tensor:
        """The logarithm of beta_t, where the first step takes posterior_variance of the second.

        The first step is the decoder p(x_0 | x_1): with beta it would give a worse likelihood.
        Nichol & Dhariwal 2021, their released code.
        """
        return self._with_decoder_variance(self.betas).log()

    @cached_property
    def posterior_mean_coef1(self) -> Tensor:
        """The weight of x_0 in the mean of q(x_{t-1} | x_t, x_0). Ho et al. 2020, eq. 7."""
        return self.betas * self.alphas_cumprod_prev.sqrt() / (1.0 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Tensor:
        """The weight of x_t in the mean of q(x_{t-1} | x_t, x_0). Ho et al. 2020, eq. 7."""
        remaining = (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        return self.alphas.sqrt() * remaining

    def respaced(self, timesteps: Sequence[int]) -> "NoiseSchedule":
        """Return the schedule of the shorter chain that visits only some timesteps.

        Its alphas_cumprod are those of the timesteps it keeps, and its betas follow from them, so
        that q(x_t | x_0) stays what it was. Nichol & Dhariwal 2021, section 4.

        Args:
            timesteps: Strictly increasing, each in [0, T).

        Returns:
            A schedule with as many timesteps as were given.

        Raises:
            ValueError: The timesteps don't increase or leave [0, T).
        """
        kept = list(timesteps)
        increasing = all(a < b for a, b in pairwise(kept))
        if not kept or not increasing or kept[0] < 0 or kept[-1] >= self.num_timesteps:
            raise ValueError(f"timesteps must increase strictly within [0, {self.num_timesteps})")
        if len(kept) == self.num_timesteps:
            return self
        alphas_cumprod = self.alphas_cumprod[kept]
        before = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
        return NoiseSchedule(1.0 - alphas_cumprod / before, self.ends_in_noise)

    def _with_decoder_variance(self, variance: Tensor) -> Tensor:
        decoder = self.posterior_variance[1:2] if self.num_timesteps > 1 else self.betas
        return torch.cat([decoder, variance[1:]])


_BETAS = {
    "linear": linear_betas,
    "cosine": cosine_betas,
    "sigmoid": sigmoid_betas,
    "scaled_linear": scaled_linear_betas,
}


def build_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """Return the schedule that a configuration names."""
    betas = _BETAS[config.betas](config.num_timesteps)
    if config.rescale_zero_snr:
        return NoiseSchedule(zero_snr_betas(betas), ends_in_noise=True)
    return NoiseSchedule(betas)
