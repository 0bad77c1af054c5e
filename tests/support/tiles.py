"""Feature maps as tiles for tests, and back."""

import torch
from torch import Tensor

from ddpm.kernels.amx.maps import IMAGES, Maps, pixels_of_tiles, tiles_of_pixels


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(2).transpose(1, 2)


def maps_of_images(images: Tensor) -> Maps:
    """Lay images (B, C, H, W) out as tiles, with their sums."""
    values = tiles_of_pixels(_pixels(images.bfloat16()), *images.shape[2:])
    blocks, channels = len(images) // IMAGES, images.shape[1]
    pixels = _pixels(images.bfloat16().float()).view(blocks, IMAGES, -1, channels)
    sums = torch.stack([pixels.sum(dim=2), pixels.square().sum(dim=2)], dim=1)
    return Maps(values, sums[None])


def images_of_maps(values: Tensor) -> Tensor:
    """Return the values of maps as images (B, C, H, W) float32."""
    height, width = values.shape[2:4]
    flat = pixels_of_tiles(values).float().transpose(1, 2)
    return flat.reshape(*flat.shape[:2], height, width)


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """Return the L2 norm of the difference over that of what was expected."""
    difference = ours.detach().double() - expected.detach().double()
    return float(difference.norm() / expected.detach().double().norm())


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers that bfloat16 holds as they are."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16().float()
