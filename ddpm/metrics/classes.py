"""Which classes samples are of, by the vote of their nearest real images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm.metrics.blocks import Features, Rows, normalised, row_blocks, squared_distances

Labels = NDArray[np.int64]
Labelled = tuple[Rows, Labels]
"""(M, D) features, (M,) their classes."""


@dataclass(frozen=True, kw_only=True)
class ClassShares:
    """How samples spread over classes.

    Attributes:
        shares: Of the samples, by class number.
        real_shares: Of the real images that vote.
        accuracy: Share of held-out real images whose class is found; None without any.
        num_held_out: Held-out real images.
        k: Real images that vote.
    """

    shares: tuple[float, ...]
    real_shares: tuple[float, ...]
    accuracy: float | None
    num_held_out: int
    k: int


def class_shares(
    features: Rows, train: Labelled, held_out: Labelled, *, num_classes: int, k: int
) -> ClassShares:
    """Return which classes samples (N, D) are of, by a classifier that saw real images alone.

    Args:
        features: Of the samples.
        train: Real images that vote.
        held_out: Real images that the vote is tried on.
        num_classes: Class numbers are below it.
        k: Voters.
    """
    real, classes = normalised(train[0]), train[1]
    found = _voted(normalised(features), real, classes, k)
    accuracy = None
    if len(held_out[1]):
        again = _voted(normalised(held_out[0]), real, classes, k)
        accuracy = float((again == held_out[1]).mean())
    return ClassShares(
        shares=_shares(found, num_classes),
        real_shares=_shares(classes, num_classes),
        accuracy=accuracy,
        num_held_out=len(held_out[1]),
        k=k,
    )


def _shares(classes: Labels, num_classes: int) -> tuple[float, ...]:
    counts = np.bincount(classes, minlength=num_classes)
    return tuple((counts / max(1, len(classes))).tolist())


def _voted(features: Rows, real: Rows, classes: Labels, k: int) -> Labels:
    """Return the class that most of the k nearest real images have; of equals, the nearest's."""
    found = np.empty(len(features), np.int64)
    for rows in row_blocks(len(features)):
        voters = classes[_nearest(features[rows], real, min(k, len(real)))]
        votes = (voters[:, :, None] == voters[:, None, :]).sum(axis=2)
        found[rows] = voters[np.arange(len(voters)), votes.argmax(axis=1)]
    return found


def _nearest(features: Features, real: Rows, k: int) -> Labels:
    """Return the k nearest real images of each, nearest first: (n, k)."""
    distances = np.full((len(features), k), np.inf)
    indices = np.zeros((len(features), k), np.int64)
    for columns in row_blocks(len(real)):
        squares = squared_distances(features, real[columns])
        numbers = np.broadcast_to(np.arange(columns.start, columns.stop), squares.shape)
        distances = np.concatenate([distances, squares], axis=1)
        indices = np.concatenate([indices, numbers], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
    return indices
