"""Images out of array files (.npy, .npz, IDX, TIFF stacks), in blocks of any size of set."""

import math
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.places import Place
from orchestrator.artifacts.datasets.unpacking import damage_translated, unpacked
from orchestrator.artifacts.datasets.wide_pictures import KEPT_DTYPES
from orchestrator.counts import counted
from orchestrator.errors import DatasetError

BLOCK_BYTES = 8 << 20
MAX_LABEL_BYTES = 4 << 30
MAX_CHANNELS = 64
NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"
EMPTY_ZIP_MAGIC = b"PK\x05\x06"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# An IDX file tells its type by its third byte; the numbers are big-endian.
_IDX_DTYPES = {0x08: ">u1", 0x0B: ">i2", 0x0D: ">f4"}
_LABELS_OF = {  # the array of images, and that of labels which belongs to it before all others
    "arr_0": "arr_1",
    "images": "labels",
    "x_train": "y_train",
    "X_train": "y_train",
    "train_images": "train_labels",
    "x": "y",
    "X": "y",
    "data": "labels",
}
LABEL_NAMES = ("y", "labels", "y_train", "label", "targets", "classes", "arr_1", "train_labels")
_HELD_OUT = ("x_test", "y_test", "test_", "val_")


@dataclass(frozen=True)
class Block:
    """Neighbouring images of a set.

    Attributes:
        start: Index of the first of them in the source.
        images: (n, H, W, C).
        name: What messages call the file that they are from.
    """

    start: int
    images: NDArray[Any]
    name: str


@dataclass(frozen=True)
class Header:
    """What the head of an array file tells.

    Attributes:
        shape: As it is stored.
        dtype: As it is stored, with its order of bytes.
        first_byte: Where its values begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first_byte: int


def is_array(head: bytes) -> bool:
    """Tell by its first bytes whether a file is a .npy or an IDX file."""
    is_idx = len(head) > 3 and head[:2] == b"\0\0" and head[2] in _IDX_DTYPES and 1 <= head[3] <= 4
    return head.startswith(NPY_MAGIC) or is_idx


class ArrayFile:
    """The images of one array file.

    Args:
        place: Where it lies.
        path: The file; it may be packed.
        member: Of a .npz, the array's name.

    Raises:
        DatasetError: The file is damaged or holds something else than images.
    """

    def __init__(self, place: Place, path: str, member: str | None = None) -> None:
        self.name = place.full_name(path)
        self._place = place
        self._path = path
        self._member = member
        with self._open() as file:
            self._header = read_header(file, self.name)
        _check_images(self._header, self.name)
        self.num_images, *self._shape = image_shape(self._header.shape, self.name)

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with open_array(self._place, self._path, self._member) as file:
            yield file

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the images from `start` to `stop`. Raises: DatasetError."""
        dtype = self._header.dtype
        image_bytes = math.prod(self._shape) * dtype.itemsize
        step = max(1, BLOCK_BYTES // image_bytes)
        with self._open() as file:
            file.seek(self._header.first_byte + start * image_bytes)
            for first in range(start, stop, step):
                count = min(step, stop - first)
                data = _read_exactly(file, count * image_bytes)
                if len(data) < count * image_bytes:
                    whole = first + len(data) // image_bytes
                    raise DatasetError(
                        f"{self.name} is cut off: {whole} of its "
                        f"{counted(self.num_images, 'image')} are whole"
                    )
                images = np.frombuffer(data, dtype).reshape(count, *self._shape)
                check_finite(images, self.name, first)
                yield Block(first, images.astype(dtype.newbyteorder("="), copy=False), self.name)
            if stop == self.num_images and file.read(1):
                raise DatasetError(
                    f"{self.name} goes on after its {counted(self.num_images, 'image')}, "
                    "so its header is wrong"
                )


def check_finite(images: NDArray[Any], name: str, first: int) -> None:
    """Raise DatasetError where an image holds a value that is no number, or is infinite."""
    if images.dtype.kind != "f" or np.isfinite(images).all():
        return
    are_good = np.isfinite(images.reshape(len(images), -1)).all(axis=1)
    raise DatasetError(
        f"{name}: image {first + int(np.argmin(are_good))} holds values that are not finite "
        "numbers; take such images out, or give the values a number"
    )


@contextmanager
def open_array(place: Place, path: str, member: str | None = None) -> Iterator[IO[bytes]]:
    """Open an array file, unpacked; of a .npz one array."""
    with damage_translated(place.full_name(path)), place.open(path) as file:
        if member is None:
            with unpacked(file, place.full_name(path)) as plain:
                yield plain
        else:
            with zipfile.ZipFile(file) as archive, archive.open(f"{member}.npy") as plain:
                yield plain


def read_vector(place: Place, path: str, member: str | None = None) -> NDArray[Any]:
    """Return an array of one value for each image, or of one for each image and class.

    Raises:
        DatasetError: It is damaged or of another shape.
    """
    name = place.full_name(path) + (f": {member}" if member else "")
    with open_array(place, path, member) as file:
        header = read_header(file, name)
        size_bytes = math.prod(header.shape) * header.dtype.itemsize
        if len(header.shape) not in (1, 2) or not 0 <= size_bytes <= MAX_LABEL_BYTES:
            raise DatasetError(f"{name} has the shape {header.shape}; labels are (N,)")
        data = _read_exactly(file, size_bytes)
    if len(data) < size_bytes:
        raise DatasetError(f"{name} is cut off")
    values = np.frombuffer(data, header.dtype).reshape(header.shape)
    return values.astype(header.dtype.newbyteorder("="))


def npz_arrays(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Return the names of the arrays of a .npz. Raises: DatasetError."""
    if any(entry.flag_bits & 1 for entry in archive.infolist()):
        raise DatasetError(f"{name} is encrypted; save it without a password")
    names = [PurePosixPath(entry) for entry in archive.namelist() if entry.endswith(".npy")]
    return [
        str(entry).removesuffix(".npy")
        for entry in names
        if not any(part.startswith(("__MACOSX", ".")) for part in entry.parts)
    ]


def choose_images(arrays: Sequence[str], name: str) -> str:
    """Return which array of a .npz holds the images. Raises: DatasetError."""
    for wanted in _LABELS_OF:
        if wanted in arrays:
            return wanted
    rest = [a for a in arrays if a not in LABEL_NAMES and not a.startswith(_HELD_OUT)]
    if len(rest) != 1:
        found = ", ".join(arrays) or "none"
        raise DatasetError(
            f"{name} must hold its images as the array arr_0 or images; its arrays: {found}"
        )
    return rest[0]


def choose_labels(arrays: Sequence[str], images: str) -> str | None:
    """Return which array of a .npz holds the labels of the images; None where none does."""
    wanted = (_LABELS_OF.get(images, ""), *LABEL_NAMES)
    return next((name for name in wanted if name in arrays and name != images), None)


def read_header(file: IO[bytes], name: str) -> Header:
    """Read the head of a .npy or an IDX file, from its start. Raises: DatasetError."""
    head = file.read(len(NPY_MAGIC))
    file.seek(0)
    if not head.startswith(NPY_MAGIC):
        return _idx_header(file, name)
    version = np.lib.format.read_magic(file)
    reader = _HEADERS.get(version)
    if reader is None:
        raise DatasetError(f"{name} has a .npy header of version {version}; save it again")
    shape, is_fortran, dtype = reader(file)
    if dtype.hasobject:
        raise DatasetError(
            f"{name} holds pickled objects, which are never read; save images as uint8, and labels "
            "by labels.astype(int) or labels.astype(str)"
        )
    if is_fortran and len(shape) > 1:
        raise DatasetError(f"{name} is in Fortran order; save np.ascontiguousarray(images)")
    return Header(shape, dtype, file.tell())


def _idx_header(file: IO[bytes], name: str) -> Header:
    magic = file.read(4)
    if len(magic) < 4 or magic[2] not in _IDX_DTYPES:
        raise DatasetError(f"{name} holds neither a .npy nor an IDX array")
    shape = struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
    return Header(shape, np.dtype(_IDX_DTYPES[magic[2]]), 4 + 4 * magic[3])


def _check_images(header: Header, name: str) -> None:
    if len(header.shape) == 1:
        raise DatasetError(
            f"{name} is an array of the shape {header.shape} (labels have 1 dimension); "
            "images have 3 or 4"
        )
    check_dtype(header.dtype, name)


def check_dtype(dtype: np.dtype[Any], name: str) -> None:
    """Raise DatasetError for values of a type that a set cannot keep."""
    if dtype.newbyteorder("=").name in KEPT_DTYPES:
        return
    advice = f"save them as one of {', '.join(KEPT_DTYPES)}"
    if dtype.kind == "f":
        advice = "save them as float32"
    raise DatasetError(f"{name} holds {dtype} values; {advice}")


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
    looks_swapped = _looks_swapped(height, width, channels)
    if len(shape) == 3 and width <= 4 < min(num_images, height):
        raise DatasetError(
            f"{name} has the shape {shape}: one image of {width} channels, or {num_images} of "
            f"{height} x {width}? Save it as (N, H, W, C)"
        )
    if channels > MAX_CHANNELS or looks_swapped:
        too_many = f": {channels} channels, {MAX_CHANNELS} at most"
        hint = ""
        if looks_swapped or height < min(width, channels):
            hint = "; it looks like (N, C, H, W): save images.transpose(0, 2, 3, 1)"
        raise DatasetError(
            f"{name} has the shape {shape}{too_many if channels > MAX_CHANNELS else ''}{hint}"
        )
    return num_images, height, width, channels


def _looks_swapped(height: int, width: int, channels: int) -> bool:
    """Tell whether (C, H, W) stands where (H, W, C) should: squares one behind the other."""
    if height <= 4 < min(width, channels):
        return True
    return width == channels and (height < width or channels > 4) and channels not in (1, 3, height)


def _read_exactly(file: IO[bytes], size_bytes: int) -> bytes:
    pieces: list[bytes] = []
    missing = size_bytes
    while missing and (piece := file.read(min(missing, BLOCK_BYTES))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
