"""Pairs of features by blocks, so that memory does not grow with their number."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
"""(N, D) float32, perhaps a memory map."""

BLOCK_ROWS = 2048


def row_blocks(num_rows: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yield slices that cover the rows in order."""
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


def normalised(features: Features) -> Features:
    """Return features (N, D) scaled to length 1 each; one that is all zeros stays so."""
    scaled = np.empty(features.shape, np.float32)
    for rows in row_blocks(len(features)):
        block = np.asarray(features[rows], np.float64)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        scaled[rows] = block / np.where(lengths > 0.0, lengths, 1.0)
    return scaled


def squared_distances(rows: Features, columns: Features) -> NDArray[np.float64]:
    """Return |row - column|^2 for each pair: (n, m) float64, not below 0."""
    rows64, columns64 = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", rows64, rows64)[:, None]
    squares = squares + np.einsum("md,md->m", columns64, columns64)[None, :]
    squares -= 2.0 * (rows64 @ columns64.T)
    return np.maximum(squares, 0.0, out=squares)
