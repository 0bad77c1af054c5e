"""Pictures that Pillow would cut to 8 bits: 16-bit colour PNG, and the TIFFs of science."""

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DatasetError

_EXTRA = "pip install 'ddpmctl[images]'"
KEPT_DTYPES = ("uint8", "uint16", "int16", "float16", "float32")
_MAX_CHANNELS = 64
_NO_IMAGE = 1 | 4  # of what a page may be: a smaller copy of another one, a mask
# What the libraries raise on damaged files, fuzzed ones among them.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_PLAIN_TIFF = frozenset({"MINISBLACK", "RGB"})


def decode_wide_png(data: bytes, name: str) -> NDArray[Any]:
    """Return the (H, W, C) uint16 of a PNG with 16 bits a channel.

    Raises:
        DatasetError: It is damaged, or the library that reads it is not installed.
    """
    try:
        import imagecodecs
    except ImportError as error:
        raise DatasetError(
            f"{name} has 16 bits a channel in colour, which Pillow would cut to 8: {_EXTRA}"
        ) from error
    try:
        pixels: NDArray[Any] = imagecodecs.png_decode(data)
    except _DAMAGE as error:
        raise DatasetError(f"{name} is damaged: {' '.join(str(error).split())}") from error
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def decode_wide_tiff(data: bytes, name: str) -> NDArray[Any]:
    """Return the pixels of a TIFF of any kept type: (H, W, C).

    Raises:
        DatasetError: It is damaged, holds several pages, or another type of values.
    """
    pages = list(tiff_pages(io.BytesIO(data), name))
    if not pages:
        raise DatasetError(f"{name} is damaged: it holds no page")
    if len(pages) != 1:
        raise DatasetError(
            f"{name} is a stack of {len(pages)} pages; give the stack itself as the source"
        )
    return pages[0]


def tiff_pages(file: Any, name: str) -> Iterator[NDArray[Any]]:
    """Yield the pages of a TIFF, (H, W, C) each.

    Raises:
        DatasetError: It is damaged, or the library that reads it is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise DatasetError(f"{name} is a TIFF that Pillow reads only in part: {_EXTRA}") from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its words would stand between ours
    try:
        with tifffile.TiffFile(file) as tiff:
            for page in _main_pages(tiff):
                yield _as_seen(_channels_last(page.asarray(), page.axes, name), page, name)
    except (tifffile.TiffFileError, *_DAMAGE) as error:
        raise DatasetError(f"{name} is damaged: {' '.join(str(error).split())}") from error


def _main_pages(tiff: Any) -> list[Any]:
    """Return the pages of a TIFF without its smaller copies and masks, as maps and slides have."""
    return [page for page in tiff.pages if not int(getattr(page, "subfiletype", 0)) & _NO_IMAGE]


def _as_seen(pixels: NDArray[Any], page: Any, name: str) -> NDArray[Any]:
    """Return grey or RGB as a viewer shows it. Raises: DatasetError."""
    meaning = page.photometric
    kind = getattr(meaning, "name", str(meaning))
    if kind == "MINISWHITE" and pixels.dtype.kind == "u":
        inverted: NDArray[Any] = ((1 << page.bitspersample) - 1 - pixels).astype(pixels.dtype)
        return inverted
    if kind not in _PLAIN_TIFF:
        raise DatasetError(
            f"{name} holds {pixels.dtype} values that mean {kind}; save it as grey or RGB"
        )
    return pixels


def count_tiff_pages(file: Any, name: str) -> int:
    """Return the number of pages of a TIFF. Raises: DatasetError."""
    try:
        import tifffile
    except ImportError as error:
        raise DatasetError(f"{name} is a stack of TIFF pages: {_EXTRA}") from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its words would stand between ours
    try:
        with tifffile.TiffFile(file) as tiff:
            return len(_main_pages(tiff))
    except (tifffile.TiffFileError, *_DAMAGE) as error:
        raise DatasetError(f"{name} is damaged: {' '.join(str(error).split())}") from error


def _channels_last(pixels: NDArray[Any], axes: str, name: str) -> NDArray[Any]:
    if not pixels.size:
        raise DatasetError(f"{name} is damaged: it has a page without pixels")
    if "Z" in axes:
        raise DatasetError(f"{name} is a volume in one page; save its slices as pages")
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    elif pixels.ndim == 3 and axes.startswith("S"):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim != 3 or pixels.shape[2] > _MAX_CHANNELS:
        raise DatasetError(f"{name} has a page of the shape {pixels.shape}; images are (H, W, C)")
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    if native.dtype.name not in KEPT_DTYPES:
        raise DatasetError(
            f"{name} holds {native.dtype} values; {', '.join(KEPT_DTYPES)} can be kept"
        )
    return np.ascontiguousarray(native)
