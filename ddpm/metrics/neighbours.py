"""Nearest neighbours among features: precision, recall, density, coverage, and memorisation.

Precision and density count a cloud of noise as real where lengths of features differ much, so the
callers give features of length 1 (`blocks.normalised`).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm.metrics.blocks import Rows, row_blocks, squared_distances

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Neighbourhoods:
    """How two sets lie in each other, by balls to the k-th nearest neighbour.

    Attributes:
        precision: Share of the samples in some real image's ball (Kynkäänniemi et al. 2019, eq. 1).
        recall: Share of the real images in some sample's ball (the same, eq. 2).
        density: Real balls that hold a sample, over k, as a mean (Naeem et al. 2020, eq. 3).
        coverage: Share of the real balls that hold a sample (Naeem et al. 2020, eq. 4).
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Nearest:
    """The nearest image of another set, for each of a set.

    Attributes:
        indices: (N,) int64.
        distances: (N,) float64.
    """

    indices: NDArray[np.int64]
    distances: Float64


def neighbourhoods(features: Rows, reference: Rows, k: int) -> Neighbourhoods:
    """Return how samples (N, D) lie among real images (M, D); balls hold their surface.

    Args:
        features: Of the samples.
        reference: Of the real images.
        k: Neighbours that a ball reaches to; the image itself is none.
    """
    radii, real_radii = kth_distances(features, k) ** 2, kth_distances(reference, k) ** 2
    n, m = len(features), len(reference)
    in_real = np.zeros(n, np.int64)
    is_recalled, is_covered = np.zeros(m, np.bool_), np.zeros(m, np.bool_)
    for rows in row_blocks(m):
        block = reference[rows]
        for columns in row_blocks(n):
            squares = squared_distances(block, features[columns])
            holds = squares <= real_radii[rows, None]
            in_real[columns] += holds.sum(axis=0)
            is_covered[rows] |= holds.any(axis=1)
            is_recalled[rows] |= (squares <= radii[None, columns]).any(axis=1)
    return Neighbourhoods(
        precision=float((in_real > 0).mean()),
        recall=float(is_recalled.mean()),
        density=float(in_real.sum()) / (k * n),
        coverage=float(is_covered.mean()),
    )


def kth_distances(features: Rows, k: int) -> Float64:
    """Return each image's distance to its k-th nearest other one: (N,) float64."""
    kept = np.empty(len(features))
    for rows in row_blocks(len(features)):
        nearest, block = np.full((rows.stop - rows.start, k), np.inf), features[rows]
        for columns in row_blocks(len(features)):
            squares = squared_distances(block, features[columns])
            if rows == columns:
                np.fill_diagonal(squares, np.inf)
            candidates = np.concatenate([nearest, squares], axis=1)
            nearest = np.partition(candidates, k - 1, axis=1)[:, :k]
        kept[rows] = nearest[:, k - 1]
    return np.sqrt(kept)


def nearest_in(features: Rows, others: Rows) -> Nearest:
    """Return for each of `features` (N, D) which of `others` (M, D) is nearest, and how far."""
    indices, distances = np.zeros(len(features), np.int64), np.full(len(features), np.inf)
    for rows in row_blocks(len(features)):
        block = features[rows]
        for columns in row_blocks(len(others)):
            squares = squared_distances(block, others[columns])
            best = squares.argmin(axis=1)
            found = squares[np.arange(len(best)), best]
            is_nearer = found < distances[rows]
            indices[rows] = np.where(is_nearer, best + columns.start, indices[rows])
            distances[rows] = np.where(is_nearer, found, distances[rows])
    return Nearest(indices, np.sqrt(distances))


def authentic_share(nearest: Nearest, train_distances: Float64) -> float:
    """Return the share of samples that are no near copies (AuthPct; Alaa et al. 2022, eq. 6).

    A sample is a near copy if it is nearer to its nearest training image than that image is to its
    own nearest neighbour among the training images.

    Args:
        nearest: Of the samples, in the training images.
        train_distances: (M,), of each training image to the nearest other one.
    """
    return float((nearest.distances > train_distances[nearest.indices]).mean())


def copying_score(sample_distances: Float64, heldout_distances: Float64) -> float:
    """Return C_T in one cell: below -3 samples copy, far above 3 they are far from the data.

    It is the Mann-Whitney statistic of distances to the training images, samples against held-out
    images, as a number of standard deviations (Meehan et al. 2020, section 3.1).

    Args:
        sample_distances: (N,), of samples to the nearest training image.
        heldout_distances: (M,), of held-out images to the nearest training image.
    """
    n, m = len(sample_distances), len(heldout_distances)
    ordered = np.sort(heldout_distances)
    below = np.searchsorted(ordered, sample_distances, "left")
    not_above = np.searchsorted(ordered, sample_distances, "right")
    u = float((below + not_above).sum()) / 2.0
    return (u - n * m / 2.0) / math.sqrt(n * m * (n + m + 1) / 12.0)
