"""Features by blocks of rows, and pairs of blocks, so that memory does not grow with their number.

What is chosen or scaled is a view that computes a block when it is asked for one; only what is
small is computed at once.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
"""(N, D) float32 in memory."""

BLOCK_ROWS = 2048
_SMALL_BYTES = 1 << 26


class Rows(Protocol):
    """Features (N, D) whose rows are read when they are asked for: an array, or a view below."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return some rows, by a slice or by their numbers: (n, D) float32."""


class _View:
    """Rows of features as something else; see `Rows`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return self._shape

    def __len__(self) -> int:
        return self._shape[0]


class MappedRows(_View):
    """Features in a file of numpy's: what was read does not stay in the process' memory.

    Args:
        path: An npy file, (N, D) float32.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            start = file.tell()
        self._rows: Features = np.frombuffer(self._map, dtype, offset=start).reshape(shape)
        super().__init__(shape)

    def __getitem__(self, rows: Any, /) -> Features:
        found: Features = self._rows[rows].copy()
        # Else each page that was ever read counts as this process' own until memory runs short.
        self._map.madvise(mmap.MADV_DONTNEED)
        return found


class _Chosen(_View):
    def __init__(self, features: Rows, indices: NDArray[np.int64]) -> None:
        super().__init__((len(indices), *features.shape[1:]))
        self._features, self._indices = features, indices

    def __getitem__(self, rows: Any, /) -> Any:
        return self._features[self._indices[rows]]


class _Normalised(_View):
    def __init__(self, features: Rows) -> None:
        super().__init__(features.shape)
        self._features = features
        self._lengths = np.empty((len(features), 1))
        for rows in row_blocks(len(features)):
            block = np.asarray(features[rows], np.float64)
            lengths = np.linalg.norm(block, axis=1, keepdims=True)
            self._lengths[rows] = np.where(lengths > 0.0, lengths, 1.0)

    def __getitem__(self, rows: Any, /) -> Any:
        block = np.asarray(self._features[rows], np.float64)
        return (block / self._lengths[rows]).astype(np.float32)


def row_blocks(num_rows: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yield slices that cover the rows in order."""
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


def chosen(features: Rows, indices: NDArray[np.int64]) -> Rows:
    """Return some rows of features, in the order of their numbers."""
    return _gathered(_Chosen(features, indices))


def normalised(features: Rows) -> Rows:
    """Return features (N, D) scaled to length 1 each; one that is all zeros stays so."""
    return _gathered(_Normalised(features))


def _gathered(view: Rows) -> Rows:
    """Return a view's rows at once where they are small, else the view."""
    width = view.shape[1] if len(view.shape) > 1 else 1
    return view[:] if len(view) * width * 4 <= _SMALL_BYTES else view


def squared_distances(rows: Features, columns: Features) -> NDArray[np.float64]:
    """Return |row - column|^2 for each pair: (n, m) float64, not below 0."""
    rows64, columns64 = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", rows64, rows64)[:, None]
    squares = squares + np.einsum("md,md->m", columns64, columns64)[None, :]
    products = rows64 @ columns64.T
    products *= 2.0
    squares -= products
    return np.maximum(squares, 0.0, out=squares)
