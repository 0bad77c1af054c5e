"""Which input pixels the taps of a convolution lie on, forwards and for the gradients.

A kernel's tap is numbered `row * kernel_width + column`.
"""

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ddpm.kernels.amx.structs import GeometryStruct, GradientTapStruct

# "same": 3x3, height and width stay. "down": 3x3 with stride 2, padded on the right and below.
# "up": each pixel repeated in both directions, then as "same". "point": 1x1.
ConvolutionKind = Literal["same", "down", "up", "point"]


class Tap(NamedTuple):
    """An input pixel, counted from the output pixel's own place, and the tap that lies on it."""

    row: int
    column: int
    weights: int


@dataclass(frozen=True)
class WeightTaps:
    """How the gradient of the weights pairs inputs with gradients; see weight_gradient.h."""

    num_planes: int
    doubled: bool
    stride: int
    taps: "ctypes.Array[GradientTapStruct]"


def kernel_size(kind: ConvolutionKind) -> int:
    """Return height and width of the kernel."""
    return 1 if kind == "point" else 3


def output_size(kind: ConvolutionKind, height: int, width: int) -> tuple[int, int]:
    """Return height and width of what comes out."""
    if kind == "down":
        return height // 2, width // 2
    return (2 * height, 2 * width) if kind == "up" else (height, width)


@functools.cache
def forward_geometry(kind: ConvolutionKind) -> GeometryStruct:
    """Return the taps of a convolution; those of "up" are those of `summed_taps`."""
    if kind == "point":
        return _geometry(1, 1, 1, [[Tap(0, 0, 0)]])
    if kind == "up":
        phases = [
            [
                Tap(row, column, 4 * phase + 2 * i + j)
                for i, row in enumerate(_summed_rows(phase // 2))
                for j, column in enumerate(_summed_rows(phase % 2))
            ]
            for phase in range(4)
        ]
        return _geometry(2, 1, 16, phases)
    first, stride = (0, 2) if kind == "down" else (-1, 1)
    taps = [Tap(row + first, column + first, 3 * row + column) for row, column in _kernel(3)]
    return _geometry(1, stride, 9, [taps])


@functools.cache
def gradient_geometry(kind: ConvolutionKind) -> GeometryStruct:
    """Return the taps of the gradient of the input, a convolution of the output's gradient."""
    if kind == "point":
        return forward_geometry(kind)
    if kind == "same":
        taps = [Tap(1 - row, 1 - column, 3 * row + column) for row, column in _kernel(3)]
        return _geometry(1, 1, 9, [taps])
    if kind == "down":
        phases = [
            [
                Tap((phase // 2 - row) // 2, (phase % 2 - column) // 2, 3 * row + column)
                for row, column in _kernel(3)
                if (phase // 2 - row) % 2 == 0 and (phase % 2 - column) % 2 == 0
            ]
            for phase in range(4)
        ]
        return _geometry(2, 1, 9, phases)
    # Each input pixel is 2x2 pixels of what the kernel sees, and each of those has nine taps.
    taps = [
        Tap(1 - row + i, 1 - column + j, 3 * row + column)
        for row, column in _kernel(3)
        for i, j in _kernel(2)
    ]
    return _geometry(1, 2, 9, [taps])


@functools.cache
def weight_taps(kind: ConvolutionKind) -> WeightTaps:
    """Return how the gradient of the weights pairs its two sides."""
    if kind == "point":
        return WeightTaps(1, False, 1, (GradientTapStruct * 1)(GradientTapStruct(0, 0, 0)))
    if kind == "down":
        taps = [GradientTapStruct(x % 2, y, x // 2) for y, x in _kernel(3)]
        return WeightTaps(2, False, 2, (GradientTapStruct * 9)(*taps))
    taps = [GradientTapStruct(0, y - 1, x - 1) for y, x in _kernel(3)]
    return WeightTaps(1, kind == "up", 1, (GradientTapStruct * 9)(*taps))


@functools.cache
def summed_taps() -> Tensor:
    """Return which taps of a 3x3 kernel meet each of the four input pixels of "up".

    Returns:
        (9, 16) float64 of zeros and ones: for each tap, the four pixels of each of four phases.
    """
    sums = torch.zeros(9, 16, dtype=torch.float64)
    for phase in range(4):
        for row, column in _kernel(3):
            i = (phase // 2 + row - 1) // 2 - _summed_rows(phase // 2)[0]
            j = (phase % 2 + column - 1) // 2 - _summed_rows(phase % 2)[0]
            sums[3 * row + column, 4 * phase + 2 * i + j] = 1.0
    return sums


def _summed_rows(parity: int) -> tuple[int, int]:
    """Return the two input rows that an output row sees, counted from its own."""
    return (0, 1) if parity else (-1, 0)


def _kernel(size: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(size) for column in range(size)]


def _geometry(
    phases: int, stride: int, num_weights: int, taps: Sequence[Sequence[Tap]]
) -> GeometryStruct:
    geometry = GeometryStruct(phases=phases, stride=stride, num_weights=num_weights)
    for phase, phase_taps in enumerate(taps):
        geometry.num_taps[phase] = len(phase_taps)
        for place, tap in zip(geometry.taps[phase], phase_taps, strict=False):
            place.row, place.column, place.weights = tap
    return geometry
