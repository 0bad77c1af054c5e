"""The number of parameters of a U-Net, from its sizes alone: no weights are made, no torch."""

from collections.abc import Iterator

from ddpm.config import NUM_AUGMENTATIONS, UNetConfig


def count_parameters(
    config: UNetConfig, image_shape: tuple[int, int, int], out_channels: int | None = None
) -> int:
    """Return the number of parameters of `UNet(config, image_shape, out_channels=out_channels)`.

    Args:
        config: The sizes; its classes are a number.
        image_shape: (C, H, W).
        out_channels: Channels of the output; None takes the images' own.
    """
    return sum(_parts(config, image_shape, out_channels or image_shape[0]))


def _parts(
    config: UNetConfig, image_shape: tuple[int, int, int], out_channels: int
) -> Iterator[int]:
    channels, height, _ = image_shape
    width, embedding = config.channels, 4 * config.channels
    widths = [width * multiplier for multiplier in config.channel_multipliers]
    yield _linear(width, embedding) + _linear(embedding, embedding)
    yield _conv(channels, width) + _conv(width, out_channels) + 2 * width
    rows = config.known_classes + 1 if config.known_classes else 0
    yield (rows + NUM_AUGMENTATIONS * config.augmentation) * embedding
    current, skips = width, [width]
    for level, wide in enumerate(widths):
        for _ in range(config.num_res_blocks):
            yield _stage(current, wide, embedding, height >> level in config.attention_resolutions)
            current = wide
            skips.append(current)
        if level < len(widths) - 1:
            yield _conv(current, current)
            skips.append(current)
    yield 2 * _block(current, current, embedding) + _attention(current)
    for level, wide in reversed(list(enumerate(widths))):
        for _ in range(config.num_res_blocks + 1):
            inner = current + skips.pop()
            yield _stage(inner, wide, embedding, height >> level in config.attention_resolutions)
            current = wide
        if level > 0:
            yield _conv(current, current)


def _linear(inner: int, outer: int) -> int:
    return inner * outer + outer


def _conv(inner: int, outer: int) -> int:
    return 9 * inner * outer + outer


def _block(inner: int, outer: int, embedding: int) -> int:
    shortcut = _linear(inner, outer) if inner != outer else 0
    convs = _conv(inner, outer) + _conv(outer, outer)
    return 2 * inner + 2 * outer + convs + _linear(embedding, outer) + shortcut


def _attention(channels: int) -> int:
    return 2 * channels + _linear(channels, 3 * channels) + _linear(channels, channels)


def _stage(inner: int, outer: int, embedding: int, attends: bool) -> int:
    return _block(inner, outer, embedding) + (_attention(outer) if attends else 0)
