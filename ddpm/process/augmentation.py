"""Augmentation that does not leak: the network is conditioned on what was done to each image.

Karras et al. 2022, appendix F.2: images are mirrored, scaled, turned, stretched and moved, each
with one probability, and the network is given the nine numbers of that beside the timestep. Images
are drawn with all nine at 0, which means that nothing was done, so nothing of it is seen in them.
What is done to an image is a function of (seed, step, position in the global batch).

One difference: images are resampled bilinearly, where Karras et al. go through wavelets of
twice the resolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.process.noise import Stream, normals, random_words

_SCALE_STD, _STRETCH_STD, _SHIFT_STD = 0.2, 0.2, 0.125  # of log2, of log2, of the image's size
_NUM_GATES = 6
_TURN, _DIRECTION, _IS_DIRECTED = _NUM_GATES, _NUM_GATES + 1, _NUM_GATES + 2
_NUM_BLOCKS = 3  # of four uniform numbers
_NUM_NORMALS = 4


def augmented(
    x_start: Tensor, seed: int, step: int | Tensor, positions: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """Return images to which something was done, and what.

    Args:
        x_start: (B, C, H, W) float32.
        seed: A 64-bit integer, in [-2**63, 2**63).
        step: The optimizer step; or (1,) int64 on the positions' device.
        positions: (B,) int64, the images' places in the global batch, below 2**32.
        probability: Of each of the six things, in [0, 1].

    Returns:
        (B, C, H, W) float32, and (B, NUM_AUGMENTATIONS) float32 of conditions: mirrored
        (2), scale, turn (2), stretch and its direction (2), shift (2). An image to which nothing
        was done is the same to the bit, and its conditions are 0.
    """
    uniform = _uniform(seed, step, positions)
    normal = normals(seed, Stream.AUGMENTATION_SIZE, step, positions, (_NUM_NORMALS,))
    is_done = uniform[:, :_NUM_GATES] < probability
    mirrored_x, mirrored_y, *warps = is_done.unbind(1)
    x = torch.where(mirrored_x[:, None, None, None], x_start.flip(3), x_start)
    x = torch.where(mirrored_y[:, None, None, None], x.flip(2), x)
    applied, back = _warp(warps, uniform, normal, x.shape[2:])
    is_warped = torch.stack(warps).any(dim=0)
    grid = F.affine_grid(back[:, :2], list(x.shape), align_corners=False)
    warped = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    x = torch.where(is_warped[:, None, None, None], warped, x)
    mirrored = torch.stack([mirrored_x, mirrored_y], dim=1).float()
    return x.contiguous(memory_format=torch.channels_last), torch.cat([mirrored, applied], dim=1)


def _uniform(seed: int, step: int | Tensor, positions: Tensor) -> Tensor:
    """Return (B, 12) float32 in (0, 1)."""
    words = random_words(seed, Stream.AUGMENTATION, step, positions, _NUM_BLOCKS)
    return ((torch.cat(words, dim=1).double() + 0.5) * 2.0**-32).float()


def _warp(
    gates: list[Tensor], uniform: Tensor, normal: Tensor, size: torch.Size
) -> tuple[Tensor, Tensor]:
    """Return the conditions of the warps, (B, 7), and where pixels come from, (B, 3, 3).

    Args:
        gates: (B,) bool each: scaled, turned, stretched, moved.
        uniform: (B, 12) in (0, 1), and normal: (B, 4), for how much.
        normal: See `uniform`.
        size: Height and width.
    """
    scaled, turned, stretched, moved = (gate.float() for gate in gates)
    zoom, stretch = normal[:, 0] * scaled, normal[:, 1] * stretched
    turn = (2.0 * uniform[:, _TURN] - 1.0) * math.pi * turned
    is_directed = (uniform[:, _IS_DIRECTED] < 0.5).float()
    # A half turn has every axis once, so that the two numbers say which it was.
    direction = (uniform[:, _DIRECTION] - 0.5) * math.pi * is_directed
    shift_x, shift_y = normal[:, 2] * moved, normal[:, 3] * moved
    applied = [
        zoom,
        *(turn.cos() - 1.0, turn.sin()),
        *(stretch * direction.cos(), stretch * direction.sin()),
        *(shift_x, shift_y),
    ]
    shrink = torch.exp2(-_SCALE_STD * zoom)
    squeeze = torch.exp2(-_STRETCH_STD * stretch)
    height, width = size
    back = _scale(shrink, shrink) @ _rotate(-turn)
    back = back @ _rotate(direction) @ _scale(squeeze, 1.0 / squeeze) @ _rotate(-direction)
    back = back @ _translate(-_SHIFT_STD * width * shift_x, -_SHIFT_STD * height * shift_y)
    # From pixels around the image's middle to edges at -1 and 1, as the sampler counts.
    edges = torch.tensor([2.0 / width, 2.0 / height, 1.0], device=back.device)
    return torch.stack(applied, dim=1), edges[:, None] * back / edges


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _rotate(angle: Tensor) -> Tensor:
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return _matrix([[cos, sin, zero], [-sin, cos, zero], [zero, zero, one]])


def _translate(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[one, zero, x], [zero, one, y], [zero, zero, one]])
