"""The order in which training sees the images of a data set.

It is a pure function of (seed, step): nothing of it has to be saved, and a worker that starts again
in the middle of an epoch goes on with the very next image.
"""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ddpm.config import ConfigError

ORDER_STREAM = 1  # these keep what is drawn for different ends apart from each other
SPLIT_STREAM = 2
_BLOCK_STREAM = 3
_WINDOW_STREAM = 4
Key = TypeVar("Key")
Value = TypeVar("Value")
_KEPT = 3  # epochs and windows: a batch may touch two, and the next is looked at


class BatchOrder:
    """Which images make up the global batch of each step: every image once an epoch.

    The epochs' permutations are strung together and cut into batches, so that a batch may hold
    the end of one epoch and the start of the next.
    """

    def __init__(self, num_images: int, global_batch_size: int, seed: int) -> None:
        self.num_images = num_images
        self.global_batch_size = global_batch_size
        self.seed = seed
        self._cached_epoch = -1
        self._cached_permutation = np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Return the images of step `step`, counted from 0, by position in the global batch.

        Returns:
            (global_batch_size,) int64 in [0, num_images).
        """
        first = step * self.global_batch_size
        positions = np.arange(first, first + self.global_batch_size)
        epochs, offsets = np.divmod(positions, self.num_images)
        indices = np.empty(self.global_batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            indices[in_epoch] = self._epoch(int(epoch))[offsets[in_epoch]]
        return indices

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._cached_epoch:
            self._cached_permutation = permutation(self.num_images, ORDER_STREAM, self.seed, epoch)
            self._cached_epoch = epoch
        return self._cached_permutation


class BlockOrder:
    """Which images make up the global batch of each step, where not all are at hand at once.

    Each epoch draws the order of the blocks; so many of them in turn are a window, and the images
    of a window are drawn in any order. Every image comes once an epoch, as with `BatchOrder`, and
    a worker that goes on anywhere needs the blocks of its window alone.

    Args:
        sizes: (K,) int64, images of each block; neighbours in the data set's numbers.
        window: Blocks that images are drawn from at a time.
        global_batch_size: Images of a step.
        seed: Of the order.
    """

    def __init__(
        self, sizes: NDArray[np.int64], window: int, global_batch_size: int, seed: int
    ) -> None:
        self.num_images = int(sizes.sum())
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.window = window
        self._sizes = sizes
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._windows: dict[tuple[int, int], NDArray[np.int64]] = {}

    def indices(self, step: int) -> NDArray[np.int64]:
        """Return the images of step `step`, counted from 0, by position in the global batch.

        Returns:
            (global_batch_size,) int64 in [0, num_images).
        """
        indices = np.empty(self.global_batch_size, dtype=np.int64)
        for (epoch, window), places, offsets in self._parts(step):
            indices[places] = self._drawn(epoch, window)[offsets]
        return indices

    def blocks_from(self, step: int) -> tuple[int, ...]:
        """Return the blocks that a step needs, and behind them those of the next window."""
        needed = [at for at, _, _ in self._parts(step)]
        epoch, window = needed[-1]
        is_last = window + 1 == len(self._epoch(epoch)[1])
        needed.append((epoch + 1, 0) if is_last else (epoch, window + 1))
        blocks = [int(block) for at in needed for block in self._blocks(*at)]
        return tuple(dict.fromkeys(blocks))

    def _parts(
        self, step: int
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.int64], NDArray[np.int64]]]:
        """Yield ((epoch, window), places in the batch, places in the window) in order."""
        first = step * self.global_batch_size
        positions = np.arange(first, first + self.global_batch_size)
        epochs, in_epoch = np.divmod(positions, self.num_images)
        for epoch in np.unique(epochs).tolist():
            ends = self._epoch(epoch)[1]
            windows = np.searchsorted(ends, in_epoch, side="right")
            for window in np.unique(windows[epochs == epoch]).tolist():
                places = np.flatnonzero((epochs == epoch) & (windows == window))
                begins = ends[window - 1] if window else 0
                yield (epoch, window), places, in_epoch[places] - begins

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the blocks of an epoch in order, and how many images come to each window's end."""
        if epoch not in self._epochs:
            blocks = permutation(len(self._sizes), _BLOCK_STREAM, self.seed, epoch)
            starts = np.arange(0, len(blocks), self.window)
            ends = np.cumsum(np.add.reduceat(self._sizes[blocks], starts))
            _keep(self._epochs, epoch, (blocks, ends))
        return self._epochs[epoch]

    def _blocks(self, epoch: int, window: int) -> NDArray[np.int64]:
        first = window * self.window
        return self._epoch(epoch)[0][first : first + self.window]

    def _drawn(self, epoch: int, window: int) -> NDArray[np.int64]:
        """Return the images of a window in the order in which they are drawn."""
        if (epoch, window) not in self._windows:
            spans = [
                np.arange(self._starts[block], self._starts[block + 1])
                for block in self._blocks(epoch, window)
            ]
            images = np.concatenate(spans)
            order = permutation(len(images), _WINDOW_STREAM, self.seed, epoch, window)
            _keep(self._windows, (epoch, window), images[order])
        return self._windows[epoch, window]


def _keep(kept: dict[Key, Value], key: Key, value: Value) -> None:
    """Remember a value, and forget the oldest where there are many."""
    kept[key] = value
    while len(kept) > _KEPT:
        del kept[next(iter(kept))]


def rank_positions(global_batch_size: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """Return the positions in the global batch that a worker takes.

    Returns:
        (global_batch_size / world_size,) int64, one run of neighbours.

    Raises:
        ConfigError: The workers do not divide the global batch.
    """
    if global_batch_size % world_size:
        requirement = f"divisible by the number of workers, {world_size}"
        raise ConfigError("global_batch_size", global_batch_size, requirement)
    size = global_batch_size // world_size
    return np.arange(rank * size, (rank + 1) * size)


def permutation(size: int, stream: int, seed: int, epoch: int, part: int = 0) -> NDArray[np.int64]:
    """Return a permutation that is a pure function of the arguments, with any numpy.

    numpy promises that a bit generator's raw numbers never change, but not what `Generator` makes
    of them; so the order is that of the raw numbers.
    """
    keys = np.random.Philox(key=seed, counter=[0, part, epoch, stream]).random_raw(size)
    return np.argsort(keys, kind="stable")
