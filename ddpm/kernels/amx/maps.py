"""Feature maps as tiles: 16 images x 32 channels of one pixel lie together, 1 KB.

(B, C, H, W) becomes (blocks, C / 32, H, W, 16, 32) bfloat16. Of the input, images that
a block lacks are zeros; of all maps, channels that C lacks are.

By image, they have the same shape but other strides: what an image has in 32 channels at all pixels
lies together.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.kernels.amx.program import empty

IMAGES = 16  # of a block
CHANNELS = 32  # of a tile


class Maps(NamedTuple):
    """Feature maps, and what group norm wants to know of them.

    Attributes:
        values: (blocks, C / 32, H, W, 16, 32) bfloat16.
        sums: (chunks, blocks, 2, 16, C) float32: over the pixels of a few rows, of the values and
            of their squares.
    """

    values: Tensor
    sums: Tensor


def num_blocks(batch_size: int) -> int:
    """Return how many blocks hold so many images."""
    return -(-batch_size // IMAGES)


def empty_maps(
    blocks: int, channel_blocks: int, height: int, width: int, *, by_image: bool = False
) -> Tensor:
    """Return uninitialised maps, as tiles or laid out by image."""
    if by_image:
        maps = empty((blocks, channel_blocks, IMAGES, height, width, CHANNELS), torch.bfloat16)
        return maps.permute(0, 1, 3, 4, 2, 5)
    return empty((blocks, channel_blocks, height, width, IMAGES, CHANNELS), torch.bfloat16)


def tiles_of_images(images: Tensor) -> Tensor:
    """Lay images out as tiles.

    Args:
        images: (B, C, H, W) of any dtype; B a multiple of 16, C at most 32.

    Returns:
        (B / 16, 1, H, W, 16, 32) bfloat16.
    """
    channels, height, width = images.shape[1:]
    tiles = images.to(torch.bfloat16).view(-1, IMAGES, channels, height, width)
    tiles = tiles.permute(0, 3, 4, 1, 2).unsqueeze(1)
    return F.pad(tiles, (0, CHANNELS - channels)).contiguous()


def images_of_tiles(tiles: Tensor, channels: int) -> Tensor:
    """Undo `tiles_of_images`.

    Returns:
        (B, channels, H, W) float32.
    """
    images = tiles[:, 0, :, :, :, :channels].permute(0, 3, 4, 1, 2)
    return images.flatten(0, 1).float()


def pixels_of_tiles(tiles: Tensor) -> Tensor:
    """Return maps as (B, H * W, C), copied."""
    blocks, channel_blocks, height, width = tiles.shape[:4]
    pixels = tiles.permute(0, 4, 2, 3, 1, 5)
    return pixels.reshape(blocks * IMAGES, height * width, channel_blocks * CHANNELS)


def tiles_of_pixels(pixels: Tensor, height: int, width: int) -> Tensor:
    """Undo `pixels_of_tiles`."""
    tiles = pixels.view(-1, IMAGES, height, width, pixels.shape[2] // CHANNELS, CHANNELS)
    return tiles.permute(0, 4, 2, 3, 1, 5).contiguous()
