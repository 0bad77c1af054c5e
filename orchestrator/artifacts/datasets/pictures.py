"""Pixels out of encoded pictures, recognised by their content: PNG, JPEG, WebP, BMP, TIFF and GIF.

What a viewer shows is what comes out: the orientation of EXIF is applied, colours of another space
than sRGB are converted to it, 16 bits stay 16 bits. What cannot be read so is refused by name.
"""

import io
import struct
import zlib
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from orchestrator.artifacts.datasets.colours import from_cmyk, in_srgb
from orchestrator.artifacts.datasets.kinds import kind_of
from orchestrator.artifacts.datasets.wide_pictures import (
    count_tiff_pages,
    decode_wide_png,
    decode_wide_tiff,
)
from orchestrator.artifacts.images import check_png_chunks
from orchestrator.errors import DatasetError

MAX_PIXELS = 1 << 24
MAX_PIXELS_SCALED = 1 << 27
ANIMATION = "only the first frame of an animation"
NO_EXIF = "unusable EXIF passed over"
WIDE_PROFILE = "colour profile of more than 8 bits a value taken for sRGB"
# Named by their modules, so that they are registered.
FORMATS = (
    PngImagePlugin.PngImageFile.format,
    JpegImagePlugin.JpegImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    GifImagePlugin.GifImageFile.format,
)
_NAMES = "PNG, JPEG, WebP, BMP, TIFF or GIF"
HEAD_BYTES = 32
_LOOKED_AT = 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "1": "L", "La": "LA", "RGBa": "RGBA"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 339  # of a TIFF's tags
_UNSIGNED, _IMAGE_DEPTH = 1, 32997
_ORIENTATION, _TURNED = 0x0112, range(2, 9)  # of EXIF: mirrored, turned, or both
# What Pillow's decoders raise on damaged files, fuzzed ones among them.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def is_picture(head: bytes) -> bool:
    """Tell by the first bytes of a file whether it is a picture of a kind that is read."""
    if head.startswith((_PNG, b"\xff\xd8\xff", b"GIF87a", b"GIF89a", *_TIFF)):
        return True
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    return head.startswith(b"BM") and head[6:10] == bytes(4) and len(head) >= 26


def is_tiff(head: bytes) -> bool:
    """Tell by the first bytes whether a file is a TIFF, which may hold many pictures."""
    return head.startswith(_TIFF)


def decode_picture(
    data: bytes, name: str, notes: Counter[str] | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image | NDArray[Any]:
    """Return the pixels of a picture.

    Args:
        data: The file's bytes.
        name: What messages call it.
        notes: Counts what was done to it that its owner should know.
        max_pixels: More are refused.

    Returns:
        8-bit grey or RGB, with alpha or without, as an image; what has more bits as an array
        (H, W, C) of uint16, int16 or float32.

    Raises:
        DatasetError: It is damaged, too large, or of a kind that would be misread.
    """
    notes = Counter() if notes is None else notes
    if data.startswith(_PNG):
        check_png_chunks(data, name)
    try:
        return _decoded(data, name, notes, max_pixels)
    except Image.DecompressionBombError as error:
        raise DatasetError(
            f"{name} has more than {max_pixels} pixels{_advice(max_pixels)}"
        ) from error
    except UnidentifiedImageError as error:
        if data.startswith(_TIFF):  # floats in several channels, and other things of science
            return decode_wide_tiff(data, name)
        kind = kind_of(data[:_LOOKED_AT])
        message = f": it is {kind}" if kind else ""
        raise DatasetError(f"{name} is not a readable {_NAMES}{message}") from error
    except (*_DAMAGE, MemoryError) as error:
        raise DatasetError(f"{name} is damaged: {' '.join(str(error).split())}") from error


def _advice(max_pixels: int) -> str:
    scaled = "" if max_pixels > MAX_PIXELS else ", or set dataset.image_size"
    return f"; scale it down first{scaled}"


def _decoded(
    data: bytes, name: str, notes: Counter[str], max_pixels: int
) -> Image.Image | NDArray[Any]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise DatasetError(
                f"{name} has {width} x {height} pixels, more than {max_pixels}{_advice(max_pixels)}"
            )
        num_frames = getattr(image, "n_frames", 1)
        if num_frames > 1 and image.format == "TIFF":
            num_pages = count_tiff_pages(io.BytesIO(data), name)
            if num_pages > 1:
                raise DatasetError(
                    f"{name} is a stack of {num_pages} pages; give the stack itself as the source"
                )
        elif num_frames > 1 and image.format != "MPO":  # a JPEG with more views of it behind
            notes[ANIMATION] += 1
        pixels = _wide(image, data, name)
        if pixels is None:
            return _plain(image, name, notes)
        if image.info.get("icc_profile"):
            notes[WIDE_PROFILE] += 1
        return _turned(pixels, image)


def _wide(image: Image.Image, data: bytes, name: str) -> NDArray[Any] | None:
    """Return the pixels of what Pillow reads only in part; None for what it reads whole."""
    if image.format == "PNG" and data[24] == 16 and data[25] != 0:
        return decode_wide_png(data, name)
    if image.format == "TIFF" and _is_wide(image):
        return decode_wide_tiff(data, name)
    return None


def _is_wide(image: Image.Image) -> bool:
    """Tell whether a TIFF holds other values than bytes, which Pillow reads only in part."""
    tags: Any = getattr(image, "tag_v2", {})
    bits, forms = (
        value if isinstance(value, tuple) else (value,)
        for value in (tags.get(_BITS_PER_SAMPLE, 1), tags.get(_SAMPLE_FORMAT, _UNSIGNED))
    )
    if max(bits) > 8 or set(forms) != {_UNSIGNED}:
        return True
    if tags.get(_IMAGE_DEPTH, 1) != 1:
        return True
    # Channels that nobody says the meaning of: Pillow drops those that it does not know.
    is_grey_or_rgb = tags.get(_PHOTOMETRIC) in (0, 1, 2)
    return is_grey_or_rgb and tags.get(_SAMPLES, 1) != len(image.getbands())


def _plain(image: Image.Image, name: str, notes: Counter[str]) -> Image.Image | NDArray[Any]:
    profile = image.info.get("icc_profile")
    image.load()
    turned = _upright(image, notes)
    if turned.mode.startswith("I;16"):
        return _sixteen_bits(turned)
    clear = turned.info.get("transparency")
    if clear is not None and turned.mode in ("1", "L", "RGB"):
        plain = turned.convert("RGBA" if turned.mode == "RGB" else "LA")
    elif turned.mode in ("P", "PA"):
        has_alpha = turned.mode == "PA" or "transparency" in turned.info
        plain = turned.convert("RGBA" if has_alpha else "RGB")
    elif turned.mode == "YCbCr":
        plain = turned.convert("RGB")
    elif turned.mode == "CMYK":
        return from_cmyk(turned, profile, name)
    elif turned.mode in _PLAIN:
        plain = (
            turned if turned.mode == _PLAIN[turned.mode] else turned.convert(_PLAIN[turned.mode])
        )
    else:
        raise DatasetError(
            f"{name} has the pixel format {turned.mode}; "
            "convert it to 8-bit grey, grey with alpha, RGB or RGBA first"
        )
    return in_srgb(plain, profile, notes) if profile else plain


def _upright(image: Image.Image, notes: Counter[str]) -> Image.Image:
    """Return an image as its EXIF says it is held; viewers pass over EXIF that is damaged."""
    try:
        if image.getexif().get(_ORIENTATION, 1) not in _TURNED:
            return image  # Pillow would copy it
        return ImageOps.exif_transpose(image)
    except _DAMAGE:
        notes[NO_EXIF] += 1
        return image


def _sixteen_bits(image: Image.Image) -> NDArray[Any]:
    """Return (H, W, 1) uint16 of a grey image, or (H, W, 2) where one level of it is clear."""
    grey = np.asarray(image).astype(np.uint16)
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey[..., np.newaxis]
    return np.dstack([grey, np.where(grey == clear, 0, 65535).astype(np.uint16)])


def _turned(pixels: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Apply the orientation that a picture's EXIF tells to pixels that another library read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
