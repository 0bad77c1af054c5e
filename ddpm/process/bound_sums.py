"""The bound over many images and several draws of its noise, in parts that are joined at the end.

A part holds what its images gave and, for the curve over t, the sums of their terms, so it does
not grow with the number of timesteps that an image drew. Joined in one order, the same parts give
the same bits, whoever computed them and when.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddpm.process.code_length import NUM_LEVELS
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.likelihood import BitsPerDimension, bits_per_dim

DRAW_STRIDE = 2**40  # image k of draw r has the noise of number k + r * DRAW_STRIDE

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundSums:
    """The bound of N images under R draws, in bits per dimension.

    Attributes:
        prior: (N,), L_T.
        denoising: (N, R), the sum of L_{t-1} over t, or an unbiased estimate of it.
        decoder: (N, R), L_0.
        term_sums: (T,), the sum of the L_{t-1} that were computed at each t; 0 at t = 0.
        term_squares: (T,), the sum of their squares.
        term_counts: (T,), how many there are.
    """

    prior: Values
    denoising: Values
    decoder: Values
    term_sums: Values
    term_squares: Values
    term_counts: Values

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the sums over all parts, which are of one model and as many draws."""
        per_image = ("prior", "denoising", "decoder")
        return cls(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                if field.name in per_image
                else np.sum([getattr(part, field.name) for part in parts], axis=0)
                for field in fields(cls)
            }
        )

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.prior)

    @property
    def num_draws(self) -> int:
        """R."""
        return int(self.denoising.shape[1])

    @property
    def total(self) -> Values:
        """(N, R): the bound."""
        return self.prior[:, None] + self.denoising + self.decoder

    def means(self) -> dict[str, float]:
        """Return the mean over images of the bound and of its parts, and standard errors.

        `_se` holds what the images differ and what the draws add: that of the bound of all images
        of their kind. `bpd_draws_se` is what the draws alone add, so that of the bound of just
        these images; it needs two draws.
        """
        numbers: dict[str, float] = {}
        parts = {"prior": self.prior[:, None], "denoising": self.denoising, "decoder": self.decoder}
        for name, values in {"": self.total, **{f"_{k}": v for k, v in parts.items()}}.items():
            numbers[f"bpd{name}"] = float(values.mean())
            if self.num_images > 1:
                error = values.mean(axis=1).std(ddof=1) / math.sqrt(self.num_images)
                numbers[f"bpd{name}_se"] = float(error)
        if self.num_draws > 1:
            within = self.total.var(axis=1, ddof=1).mean()
            numbers["bpd_draws_se"] = math.sqrt(within / self.num_draws / self.num_images)
        return numbers

    def curve(self) -> dict[str, list[float] | list[int]]:
        """Return the mean L_{t-1} at each t that was drawn, and its standard error."""
        seen = np.flatnonzero(self.term_counts)
        count = self.term_counts[seen]
        mean = self.term_sums[seen] / count
        spread = np.maximum(self.term_squares[seen] / count - mean**2, 0.0)
        error = np.sqrt(spread / np.maximum(count - 1.0, 1.0))
        return {"t": seen.tolist(), "bits": mean.tolist(), "se": error.tolist()}


def measure_bound(  # noqa: PLR0913  # what is measured, and of what
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    indices: Tensor,
    *,
    seed: int,
    num_draws: int = 1,
    num_timesteps: int | None = None,
    clip_denoised: bool = True,
    num_levels: int | None = NUM_LEVELS,
) -> BoundSums:
    """Compute the bound of a batch under several draws of timesteps and noise.

    Args:
        denoiser: The network.
        diffusion: The model's diffusion, on x_start's device.
        x_start: (B, C, H, W) float32 in [-1, 1].
        indices: (B,) int64 in [0, DRAW_STRIDE), the images' numbers, which their draws belong to.
        seed: A 64-bit integer.
        num_draws: How often timesteps and noise are drawn for each image.
        num_timesteps: As `bits_per_dim` takes it.
        clip_denoised: Likewise.
        num_levels: Likewise.

    Raises:
        ConfigError: `num_timesteps` is out of range.
    """
    bounds = [
        bits_per_dim(
            denoiser,
            diffusion,
            x_start,
            indices + draw * DRAW_STRIDE,
            seed=seed,
            num_timesteps=num_timesteps,
            clip_denoised=clip_denoised,
            num_levels=num_levels,
        )
        for draw in range(num_draws)
    ]
    return _summed(bounds, diffusion.num_timesteps)


def _summed(bounds: Sequence[BitsPerDimension], total_timesteps: int) -> BoundSums:
    t = np.concatenate([bound.timesteps.cpu().numpy().ravel() for bound in bounds])
    terms = np.concatenate([_values(bound.terms).ravel() for bound in bounds])

    def by_timestep(weights: Values) -> Values:
        found: Values = np.bincount(t, weights, total_timesteps).astype(np.float64, copy=False)
        return found

    return BoundSums(
        prior=_values(bounds[0].prior),
        denoising=np.stack([_values(bound.denoising) for bound in bounds], axis=1),
        decoder=np.stack([_values(bound.decoder) for bound in bounds], axis=1),
        term_sums=by_timestep(terms),
        term_squares=by_timestep(terms**2),
        term_counts=by_timestep(np.ones_like(terms)),
    )


def _values(tensor: Tensor) -> Values:
    values: Values = tensor.cpu().numpy()
    return values
