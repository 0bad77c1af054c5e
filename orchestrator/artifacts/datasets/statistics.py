"""What is known of a set's values: range, mean, deviation and histogram of each channel."""

import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 256
_PIECE = 1 << 16  # pixels measured at once: what they are widened to stays in the processor's cache


@dataclass(frozen=True)
class Statistics:
    """Sums over images, so that those of chunks add up to those of the set.

    Attributes:
        count: Values of a channel.
        lows: Smallest value of each channel.
        highs: Largest one.
        totals: Sum of each channel's values.
        squares: Sum of their squares.
        histogram: Of each channel, values in each of 256 equal bins of an integer type; of floats
            none.
    """

    count: int
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    totals: tuple[float, ...]
    squares: tuple[float, ...]
    histogram: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, images: NDArray[Any]) -> "Statistics":
        """Measure (N, H, W, C) images."""
        flat = images.reshape(-1, images.shape[-1])
        measure = cls._of_bytes if images.dtype == np.uint8 else cls._of_others
        pieces = (flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE))
        return reduce(add, map(measure, pieces))

    @classmethod
    def _of_others(cls, pixels: NDArray[Any]) -> "Statistics":
        wide = pixels.astype(np.float64)
        histogram: tuple[tuple[int, ...], ...] = ()
        if pixels.dtype.kind in "iu":
            low = int(np.iinfo(pixels.dtype).min)
            bins = (pixels.astype(np.int64) - low) >> 8
            histogram = tuple(_counts(bins[:, channel]) for channel in range(bins.shape[1]))
        return cls(
            count=len(pixels),
            lows=tuple(map(float, pixels.min(axis=0))),
            highs=tuple(map(float, pixels.max(axis=0))),
            totals=tuple(map(float, wide.sum(axis=0))),
            squares=tuple(map(float, np.square(wide).sum(axis=0))),
            histogram=histogram,
        )

    @classmethod
    def _of_bytes(cls, pixels: NDArray[np.uint8]) -> "Statistics":
        levels = np.arange(NUM_BINS)
        counts = [_counts(pixels[:, channel]) for channel in range(pixels.shape[1])]
        present = [np.flatnonzero(row) for row in counts]
        return cls(
            count=len(pixels),
            lows=tuple(float(row[0]) for row in present),
            highs=tuple(float(row[-1]) for row in present),
            totals=tuple(float(np.dot(row, levels)) for row in counts),
            squares=tuple(float(np.dot(row, levels**2)) for row in counts),
            histogram=tuple(counts),
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(
            self.count + other.count,
            tuple(map(min, self.lows, other.lows)),
            tuple(map(max, self.highs, other.highs)),
            tuple(a + b for a, b in zip(self.totals, other.totals, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
            tuple(
                tuple(a + b for a, b in zip(mine, its, strict=True))
                for mine, its in zip(self.histogram, other.histogram, strict=True)
            ),
        )

    def summary(self) -> "Summary":
        """Return the sums with the mean and the deviation that follow from them."""
        mean = tuple(total / self.count for total in self.totals)
        pairs = zip(self.squares, mean, strict=True)
        deviation = tuple(math.sqrt(max(0.0, s / self.count - m * m)) for s, m in pairs)
        sums = {name: getattr(self, name) for name in Statistics.__dataclass_fields__}
        return Summary(**sums, mean=mean, deviation=deviation)


@dataclass(frozen=True)
class Summary(Statistics):
    """The sums of a whole set, with what people want to know.

    Attributes:
        mean: Of each channel.
        deviation: Standard deviation of each channel.
    """

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()


def _counts(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(np.bincount(values, minlength=NUM_BINS).tolist())
