"""The sizes of a VAE's or a GAN's networks, from their settings alone: no weights, no torch."""

import math
from collections.abc import Iterator

from ddpm.config import UNetConfig


def level_widths(config: UNetConfig) -> list[int]:
    """Return the channels of each level."""
    return [config.channels * multiplier for multiplier in config.channel_multipliers]


def deepest_shape(config: UNetConfig, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (C, H, W) of the maps of the last level."""
    shrunk = 2 ** (len(config.channel_multipliers) - 1)
    return level_widths(config)[-1], image_shape[1] // shrunk, image_shape[2] // shrunk


def count_latent_parameters(config: UNetConfig, image_shape: tuple[int, int, int]) -> int:
    """Return the number of parameters of a VAE's or a GAN's networks, from their sizes alone."""
    size = config.latent_size
    deepest = math.prod(deepest_shape(config, image_shape))
    is_vae = config.family == "vae"
    out_size = 2 * size if is_vae else 1
    encoder = sum(_encoder_parts(config, image_shape[0], normalized=is_vae))
    widths = level_widths(config)
    inner, decoder = widths[-1], size * deepest + deepest
    for level, width in reversed(list(enumerate(widths))):
        decoder += _conv(inner, width) + 2 * width
        decoder += _conv(width, width) + 2 * width if level > 0 else 0
        inner = width
    decoder += _conv(inner, image_shape[0])
    return encoder + deepest * out_size + out_size + decoder + (1 if is_vae else 0)


def _encoder_parts(config: UNetConfig, channels: int, *, normalized: bool) -> Iterator[int]:
    widths = level_widths(config)
    for level, width in enumerate(widths):
        norm = 2 * width if normalized else 0
        yield _conv(channels, width) + norm
        if level < len(widths) - 1:
            yield _conv(width, width) + norm
        channels = width


def _conv(inner: int, outer: int) -> int:
    return 9 * inner * outer + outer
