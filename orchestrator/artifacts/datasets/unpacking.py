"""Unpacks gzip, zstd, xz and bzip2, and says what damage looks like, whichever library meets it.

A packed tar can't be read from its middle: it is unpacked into a scratch file first, which also
reads it to its end and so proves its checksum.
"""

import bz2
import gzip
import lzma
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from orchestrator.artifacts.datasets.catalog import Entry
from orchestrator.artifacts.datasets.places import WHOLE, LocalPlace, Place
from orchestrator.errors import DatasetError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
XZ_MAGIC = b"\xfd7zXZ\0"
BZIP2_MAGIC = b"BZh"
PACKED = (GZIP_MAGIC, ZSTD_MAGIC, XZ_MAGIC, BZIP2_MAGIC)
COPY_BYTES = 1 << 20
DAMAGE = (
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,  # a zip of an unknown compression
    OverflowError,
    RecursionError,  # the head of a .npy is read as Python's literals are
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def damage_translated(name: str) -> Iterator[None]:
    """Turn what the readers of archives and arrays raise on damage into a `DatasetError`."""
    try:
        yield
    except DAMAGE as error:
        raise DatasetError(f"{name} cannot be read: {' '.join(str(error).split())}") from error


@contextmanager
def unpacked(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Yield what a gzip, zstd, xz or bzip2 file holds, or the file itself, from its start."""
    head = file.read(len(XZ_MAGIC))
    file.seek(0)
    if head.startswith(GZIP_MAGIC):
        with gzip.open(file) as plain:
            yield cast(IO[bytes], plain)
    elif head.startswith(ZSTD_MAGIC):
        with _zstd(file, name) as plain:
            yield plain
    elif head.startswith(XZ_MAGIC):
        with lzma.open(file) as plain:
            yield cast(IO[bytes], plain)
    elif head.startswith(BZIP2_MAGIC):
        with bz2.open(file) as plain:
            yield cast(IO[bytes], plain)
    else:
        yield file


@contextmanager
def _zstd(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    try:
        import zstandard
    except ImportError as error:
        raise DatasetError(f"{name} is packed with zstd: pip install 'ddpmctl[images]'") from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(
            file, read_across_frames=True, closefd=False
        ) as plain:
            yield cast(IO[bytes], plain)
    except zstandard.ZstdError as error:
        raise DatasetError(f"{name} cannot be read: {error}") from error


def unpack_to(file: IO[bytes], path: Path, name: str) -> None:
    """Unpack a file into a scratch file, to its end. Raises: DatasetError."""
    with damage_translated(name), unpacked(file, name) as plain, path.open("wb") as scratch:
        while piece := plain.read(COPY_BYTES):
            try:
                scratch.write(piece)
            except OSError as error:
                raise DatasetError(
                    f"{name} cannot be unpacked to {path.parent}: {error.strerror}; give the tar "
                    "unpacked, or more room there"
                ) from error


class UnpackedPlace:
    """A place some of whose archives lie unpacked in a scratch folder, under their own names."""

    def __init__(self, place: Place, scratch: Path, copies: dict[str, str]) -> None:
        self.name, self.origin = place.name, ""
        self._place = place
        self._scratch = LocalPlace(scratch)
        self._copies = copies

    def read(self, path: str, first_byte: int = 0, size_bytes: int = WHOLE) -> bytes:
        """Return a range of a file. Raises: DatasetError."""
        if path in self._copies:
            return self._scratch.read(self._copies[path], first_byte, size_bytes)
        return self._place.read(path, first_byte, size_bytes)

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading at any place in it. Raises: DatasetError."""
        if path in self._copies:
            return self._scratch.open(self._copies[path])
        return self._place.open(path)

    def full_name(self, path: str) -> str:
        """Return what messages call a file."""
        return self._place.full_name(path)


def unpacked_place(place: Place, tars: Sequence[Entry], scratch: Path) -> Place:
    """Return a place where all of these tars lie unpacked; the same place where none is packed.

    Raises:
        DatasetError: One is damaged, or the scratch folder is full.
    """
    copies: dict[str, str] = {}
    for tar in tars:
        if place.read(tar.path, 0, len(XZ_MAGIC)).startswith(PACKED):
            copies[tar.path] = f"{len(copies):06d}.tar"
            with place.open(tar.path) as file:
                unpack_to(file, scratch / copies[tar.path], place.full_name(tar.path))
    return UnpackedPlace(place, scratch, copies) if copies else place
