"""The kernel distance between two sets of features: unbiased at any number of images."""

import numpy as np
from numpy.typing import NDArray

from ddpm.metrics.blocks import Rows, chosen, row_blocks

MAX_TOGETHER = 10_000


def kernel_distance(features: Rows, reference: Rows) -> float:
    """Return the squared MMD with the cubic kernel (x.y / D + 1)^3, unbiased.

    It is the mean over all pairs (Gretton et al. 2012, eq. 3; Bińkowski et al. 2018), and may be
    below 0. Of more than 10,000 images it is the mean over disjoint parts, which is unbiased, too,
    and grows with their number instead of its square.

    Args:
        features: (N, D).
        reference: (M, D).
    """
    num_parts = -(-min(len(features), len(reference)) // MAX_TOGETHER)
    parts = [
        _mmd2(_every(features, part, num_parts), _every(reference, part, num_parts))
        for part in range(num_parts)
    ]
    return float(np.mean(parts))


def _every(features: Rows, first: int, stride: int) -> Rows:
    return features if stride == 1 else chosen(features, np.arange(first, len(features), stride))


def _mmd2(features: Rows, reference: Rows) -> float:
    n, m = len(features), len(reference)
    within = (_sum(features, features) - _diagonal(features)) / (n * (n - 1))
    within_reference = (_sum(reference, reference) - _diagonal(reference)) / (m * (m - 1))
    return within + within_reference - 2.0 * _sum(features, reference) / (n * m)


def _kernel(products: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    base = products / width + 1.0
    return base * base * base


def _sum(rows: Rows, columns: Rows) -> float:
    total = 0.0
    for left in row_blocks(len(rows)):
        block = np.asarray(rows[left], np.float64)
        for right in row_blocks(len(columns)):
            products = block @ np.asarray(columns[right], np.float64).T
            total += float(_kernel(products, rows.shape[1]).sum())
    return total


def _diagonal(rows: Rows) -> float:
    total = 0.0
    for part in row_blocks(len(rows)):
        block = np.asarray(rows[part], np.float64)
        total += float(_kernel(np.einsum("nd,nd->n", block, block), rows.shape[1]).sum())
    return total
