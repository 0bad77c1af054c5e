"""The Fréchet distance between two sets of features, from sums that shards can be merged from."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ddpm.metrics.blocks import Rows, row_blocks

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureMoments:
    """Number, mean and sum of squared deviations of features; those of two sets merge exactly.

    Attributes:
        count: N.
        mean: (D,) float64.
        scatter: (D, D) float64, the sum of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Float64
    scatter: Float64

    @classmethod
    def of(cls, features: Rows) -> Self:
        """Return the moments of features (N, D), read by blocks."""
        merged = cls(0, np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2))
        for rows in row_blocks(len(features)):
            merged = merged.merged(cls._of_block(np.asarray(features[rows], np.float64)))
        return merged

    @classmethod
    def _of_block(cls, block: Float64) -> Self:
        mean = block.mean(axis=0)
        centred = block - mean
        return cls(len(block), mean, centred.T @ centred)

    def merged(self, other: Self) -> Self:
        """Return the moments of both sets together (Chan et al. 1979)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        between = np.outer(delta, delta) * (self.count * other.count / count)
        return type(self)(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Float64:
        """(D, D) float64, unbiased."""
        return self.scatter / max(1, self.count - 1)


def frechet_distance(
    mean1: Float64, covariance1: Float64, mean2: Float64, covariance2: Float64
) -> float:
    """Return |mean1 - mean2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, eq. 6).

    The root's trace is taken from the symmetric C1^(1/2) C2 C1^(1/2), which has the eigenvalues of
    C1 C2 and stays real where a set has fewer images than features.
    """
    values, vectors = np.linalg.eigh(covariance1)
    root1 = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    products = np.linalg.eigvalsh(root1 @ covariance2 @ root1)
    root_trace = float(np.sqrt(np.clip(products, 0.0, None)).sum())
    difference = mean1 - mean2
    traces = float(np.trace(covariance1) + np.trace(covariance2))
    return float(difference @ difference) + traces - 2.0 * root_trace


def frechet_between(features: Rows, reference: Rows) -> float:
    """Return the Fréchet distance of two sets of features (N, D) and (M, D)."""
    one, other = FeatureMoments.of(features), FeatureMoments.of(reference)
    return frechet_distance(one.mean, one.covariance, other.mean, other.covariance)
