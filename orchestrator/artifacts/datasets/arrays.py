"""Images out of array files (.npy, .npz, IDX), in blocks, so that any size fits in memory."""

import gzip
import lzma
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DatasetError

BLOCK_BYTES = 8 << 20
GZIP_MAGIC = b"\x1f\x8b"
_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
_IDX_UINT8 = b"\x00\x00\x08"
_DAMAGE = (
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,  # a zip of an unknown compression
    struct.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Block:
    """Neighbouring images of a set.

    Attributes:
        start: Index of the first of them in the whole set.
        images: (n, H, W, C) uint8.
        name: What messages call the file that they are from.
    """

    start: int
    images: NDArray[np.uint8]
    name: str


@dataclass(frozen=True)
class ImageStream:
    """A set that can be read once from front to back; the blocks may come in any order."""

    num_images: int
    blocks: Iterator[Block]


def is_array_file(path: Path, name: str) -> bool:
    """Tell by its first bytes whether a file is a .npy, a .npz or an IDX file (or one in gzip)."""
    with damage_translated(name), _plain(path) as file:
        head = _head(file)
    return head.startswith((_NPY_MAGIC, _ZIP_MAGIC, _IDX_UINT8))


@contextmanager
def open_array_file(path: Path, name: str) -> Iterator[ImageStream]:
    """Read a .npy, a .npz or an IDX file of uint8 images as a stream.

    Args:
        path: The file; an IDX file may be packed with gzip. A .npz holds the images as `arr_0`,
            as `images`, or as its only array.
        name: What messages call it.

    Raises:
        DatasetError: The file is damaged or holds something else than images.
    """
    with damage_translated(name), _plain(path) as file:
        head = _head(file)
        if head.startswith(_ZIP_MAGIC):
            with zipfile.ZipFile(path) as archive, archive.open(_member(archive, name)) as member:
                yield _npy_stream(member, name)
        elif head.startswith(_NPY_MAGIC):
            yield _npy_stream(file, name)
        else:
            yield _idx_stream(file, name)


@contextmanager
def damage_translated(name: str) -> Iterator[None]:
    """Turn what the readers of archives and arrays raise on damage into a `DatasetError`."""
    try:
        yield
    except _DAMAGE as error:
        raise DatasetError(f"{name} cannot be read: {' '.join(str(error).split())}") from error


@contextmanager
def _plain(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as packed:
        is_packed = packed.read(2) == GZIP_MAGIC
        packed.seek(0)
        if not is_packed:
            yield packed
            return
        with gzip.open(packed) as file:
            yield cast(IO[bytes], file)


def _head(file: IO[bytes]) -> bytes:
    head = file.read(len(_NPY_MAGIC))
    file.seek(0)
    return head


def _member(archive: zipfile.ZipFile, name: str) -> str:
    if any(entry.flag_bits & 1 for entry in archive.infolist()):
        raise DatasetError(f"{name} is encrypted; save it without a password")
    arrays = [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")]
    for wanted in ("arr_0", "images"):
        if wanted in arrays:
            return f"{wanted}.npy"
    if len(arrays) != 1:
        found = ", ".join(arrays) or "none"
        raise DatasetError(
            f"{name} must hold its images as the array arr_0 or images; its arrays: {found}"
        )
    return f"{arrays[0]}.npy"


def _npy_stream(file: IO[bytes], name: str) -> ImageStream:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise DatasetError(f"{name} has a .npy header of version {version}; save it again")
    shape, is_fortran, dtype = read_header(file)
    _check_dtype(dtype, name)
    if is_fortran:
        raise DatasetError(f"{name} is in Fortran order; save np.ascontiguousarray(images)")
    return _stream(file, shape, name)


def _check_dtype(dtype: np.dtype[np.generic], name: str) -> None:
    if dtype.hasobject:
        raise DatasetError(
            f"{name} holds pickled objects, which are never read; save a uint8 array"
        )
    if dtype == np.uint8:
        return
    advice = "save them as uint8 with values 0..255"
    if np.issubdtype(dtype, np.floating):
        advice = "scale them to 0..255 and save np.round(images).astype(np.uint8)"
    raise DatasetError(f"{name} holds {dtype} values; {advice}")


def _idx_stream(file: IO[bytes], name: str) -> ImageStream:
    magic = file.read(4)
    num_dimensions = magic[3]
    if num_dimensions not in (3, 4):
        raise DatasetError(
            f"{name} is an IDX file with {num_dimensions} dimensions (labels have 1); "
            "images have 3 or 4"
        )
    shape = struct.unpack(f">{num_dimensions}I", file.read(4 * num_dimensions))
    return _stream(file, shape, name)


def _stream(file: IO[bytes], shape: tuple[int, ...], name: str) -> ImageStream:
    num_images, height, width, channels = image_shape(shape, name)
    return ImageStream(num_images, _blocks(file, num_images, (height, width, channels), name))


def image_shape(shape: tuple[int, ...], name: str) -> tuple[int, int, int, int]:
    """Return the (N, H, W, C) of an array of images; (N, H, W) is grey.

    Raises:
        DatasetError: The shape is not one of images.
    """
    full = (*shape, 1) if len(shape) == 3 else shape
    if len(full) != 4:
        raise DatasetError(f"{name} has the shape {shape}; images are (N, H, W, C) or (N, H, W)")
    num_images, height, width, channels = full
    if min(full) < 1:
        raise DatasetError(f"{name} has the shape {shape}, so it holds no images")
    if channels > 4:
        hint = ""
        if height <= 4 and height < min(width, channels):
            hint = "; it looks like (N, C, H, W): save images.transpose(0, 2, 3, 1)"
        raise DatasetError(f"{name} has the shape {shape}: {channels} channels, 4 at most{hint}")
    return num_images, height, width, channels


def _blocks(
    file: IO[bytes], num_images: int, shape: tuple[int, int, int], name: str
) -> Iterator[Block]:
    image_bytes = math.prod(shape)
    step = max(1, BLOCK_BYTES // image_bytes)
    for start in range(0, num_images, step):
        count = min(step, num_images - start)
        data = _read_exactly(file, count * image_bytes)
        if len(data) < count * image_bytes:
            whole = start + len(data) // image_bytes
            raise DatasetError(f"{name} is cut off: {whole} of its {num_images} images are whole")
        yield Block(start, np.frombuffer(data, np.uint8).reshape(count, *shape), name)
    if file.read(1):
        raise DatasetError(f"{name} goes on after its {num_images} images, so its header is wrong")


def _read_exactly(file: IO[bytes], size_bytes: int) -> bytes:
    pieces: list[bytes] = []
    missing = size_bytes
    while missing and (piece := file.read(min(missing, BLOCK_BYTES))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
