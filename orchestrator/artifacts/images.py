"""Images in and out of files: PNG bytes, grids and film strips for people to look at."""

import io
import math
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from orchestrator.errors import DatasetError

MAX_PIXELS = 1 << 24
_READABLE_EDGE = 48
_PADDING = 2
MAX_PNG_CHANNELS = 4
_COLOUR_TYPE_AT, _PALETTE = 25, 3
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MODE_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return an image as a PNG, packed for speed and not for size.

    Args:
        image: (H, W, C) uint8 with C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).

    Raises:
        DatasetError: The array has another shape or type.
    """
    if image.ndim != 3 or not 1 <= image.shape[2] <= 4 or image.dtype != np.uint8:
        raise DatasetError(
            f"an image must be (H, W, C) uint8 with 1 to 4 channels, not {image.shape} "
            f"{image.dtype}"
        )
    pixels = np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format="PNG", compress_level=1)
    return packed.getvalue()


def decode_png(data: bytes, name: str = "the PNG") -> NDArray[np.uint8]:
    """Return the pixels of a PNG as they are stored: (H, W, C) uint8.

    Args:
        data: The file's bytes.
        name: What messages call it.

    Raises:
        DatasetError: It is damaged, too large, or does not hold 8 bits a channel.
    """
    return _decoded(data, name)


def _decoded(data: bytes, name: str) -> NDArray[np.uint8]:
    if data.startswith(_PNG_SIGNATURE):
        check_png_chunks(data, name)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images on its own; the limit here is lower and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=("PNG",))
        with opened as image:
            _check_size(image, name)
            pixels = np.asarray(_with_plain_mode(image, name))
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{name} has more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise DatasetError(f"{name} is not a readable PNG") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{name} is damaged: {' '.join(str(error).split())}") from error
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def check_png_chunks(data: bytes, name: str) -> None:
    """Raise DatasetError unless a PNG is whole: Pillow looks at neither sums nor the end."""
    start = len(_PNG_SIGNATURE)
    kind, has_palette = b"", False
    while kind != b"IEND":
        if len(data) < start + 12:
            raise DatasetError(f"{name} is damaged: it is cut off after {len(data)} bytes")
        size_bytes, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + size_bytes
        if zlib.crc32(data[start + 4 : end]).to_bytes(4) != data[end : end + 4]:
            raise DatasetError(f"{name} is damaged: the checksum at byte {end} does not fit")
        has_palette = has_palette or kind == b"PLTE"
        start = end + 4
    if data[_COLOUR_TYPE_AT] == _PALETTE and not has_palette:
        raise DatasetError(f"{name} is damaged: its palette is missing")


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DatasetError(
            f"{name} has {width} x {height} pixels; {MAX_PIXELS} at most, so scale it down first"
        )


def _with_plain_mode(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _MODE_CHANNELS:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    raise DatasetError(
        f"{name} has the pixel format {image.mode}; "
        "convert it to 8-bit grey, grey with alpha, RGB or RGBA first"
    )


def image_grid(
    images: NDArray[np.uint8], columns: int | None = None, scale: int | None = None
) -> bytes:
    """Return images side by side as one PNG, in reading order, with white lines between them.

    Args:
        images: (N, H, W, C) uint8 with N at least 1.
        columns: Images of a row; by default the grid is about square.
        scale: Screen pixels of a pixel's edge; by default tiny images are enlarged until they can
            be read.
    """
    if images.shape[-1] > MAX_PNG_CHANNELS:  # a field of many quantities is shown by its first
        images = images[..., :1]
    num_images, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(num_images))
    scale = scale or max(1, math.ceil(_READABLE_EDGE / max(height, width)))
    rows = math.ceil(num_images / columns)
    cell_height, cell_width = height * scale + _PADDING, width * scale + _PADDING
    shape = (rows * cell_height + _PADDING, columns * cell_width + _PADDING, channels)
    grid = np.full(shape, 255, np.uint8)
    for index, image in enumerate(images):
        top = _PADDING + index // columns * cell_height
        left = _PADDING + index % columns * cell_width
        enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
        grid[top : top + height * scale, left : left + width * scale] = enlarged
    return encode_png(grid)


def film_strip(frames: NDArray[np.uint8]) -> bytes:
    """Return a PNG with one row for each image and its frames from left to right.

    Args:
        frames: (N, F, H, W, C) uint8: F frames of each of N images.
    """
    num_images, num_frames = frames.shape[:2]
    flat = frames.reshape(num_images * num_frames, *frames.shape[2:])
    return image_grid(flat, columns=num_frames)
