"""Finds the pictures of tars and zips, read where they lie and never extracted.

A packed tar (gzip, zstd, xz, bzip2) can't be read from its middle: it is unpacked into a scratch
file first, which also reads it to its end and so proves its checksum.
"""

import bz2
import gzip
import itertools
import lzma
import stat
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from orchestrator.artifacts.datasets.catalog import Entry, archive_of
from orchestrator.artifacts.datasets.entries import Collector, Listing
from orchestrator.artifacts.datasets.left_out import Survey
from orchestrator.artifacts.datasets.pictures import HEAD_BYTES
from orchestrator.artifacts.datasets.places import WHOLE, LocalPlace, Place
from orchestrator.errors import DatasetError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
XZ_MAGIC = b"\xfd7zXZ\0"
BZIP2_MAGIC = b"BZh"
TAR_SUFFIXES = (
    ".tar",
    *(f".tar.{packer}" for packer in ("gz", "zst", "xz", "bz2")),
    *(".tgz", ".tzst", ".txz", ".tbz", ".tbz2"),
)
PACKED = (GZIP_MAGIC, ZSTD_MAGIC, XZ_MAGIC, BZIP2_MAGIC)
_TAR_BLOCK_BYTES = 512
_COPY_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30
_MOST_PARTS = 8  # pictures of a sample
_UNIX = 3  # of the systems that a zip may be from
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
        while piece := plain.read(_COPY_BYTES):
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


def list_tar(found: Collector, place: Place, path: str, stamp: str) -> None:
    """Add the files of an unpacked tar to what was found.

    Raises:
        DatasetError: It is damaged, or holds links or devices.
    """
    name = place.full_name(path)
    with (
        damage_translated(name),
        place.open(path) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        for member in _members(tar, name):
            first = member.offset_data
            member_name = _tidy(member.name)
            entry = Entry(member_name, path, first, member.size, stamp=stamp)
            found.add(entry, member.size, lambda at=first: place.read(path, at, HEAD_BYTES))  # type: ignore[misc]


def _members(tar: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    end = 0
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # keep no header in memory
        blocks = -(-member.size // _TAR_BLOCK_BYTES) if member.isreg() else 0
        end = member.offset_data + blocks * _TAR_BLOCK_BYTES
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DatasetError(
                f"{name}: {member.name} is a link, a device or sparse; only plain files are read: "
                "pack it again with `tar --dereference --hard-dereference`"
            )
        yield member
    _check_end(tar.fileobj, end, name)


def _check_end(file: Any, end: int, name: str) -> None:
    """Make sure that an archive has its end mark, and nothing behind it."""
    # Where a header is cut off, tarfile only stops: the images after it would silently be missing.
    file.seek(end)
    if file.read(_TAR_BLOCK_BYTES) != bytes(_TAR_BLOCK_BYTES):
        raise DatasetError(f"{name} is cut off: it has no end mark; pack it again")
    while piece := file.read(_COPY_BYTES):
        if piece.count(0) != len(piece):
            raise DatasetError(
                f"{name} goes on after its end mark: two archives one behind the other? "
                "Give them as two files of a folder"
            )


def _tidy(name: str) -> str:
    """Return a member's name without "./" before it, as `tar c .` writes it."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; some programs of Windows part folders by backslashes."""
    name = info.filename
    return _tidy(name if "/" in name else name.replace("\\", "/"))


def list_zip(found: Collector, place: Place, path: str, stamp: str) -> None:
    """Add the files of a zip to what was found.

    Raises:
        DatasetError: It is damaged, encrypted, or packed in an unusual way.
    """
    name = place.full_name(path)
    with damage_translated(name), place.open(path) as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            _check_zip_member(info, name)
            entry = _zip_entry(info, file, path, stamp, name)
            found.add(entry, info.file_size, lambda info=info: archive.open(info).read(HEAD_BYTES))  # type: ignore[misc]


def _check_zip_member(info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & 1:
        raise DatasetError(f"{name} is encrypted; save it without a password")
    if info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16):
        raise DatasetError(
            f"{name}: {info.filename} is a link; only plain files are read: pack it again with "
            "what the links lead to"
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DatasetError(
            f"{name}: {info.filename} is packed by method {info.compress_type}; "
            "pack it with deflate, or not at all"
        )


def _zip_entry(info: zipfile.ZipInfo, file: IO[bytes], path: str, stamp: str, name: str) -> Entry:
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(b"PK\x03\x04"):
        raise DatasetError(f"{name}: {info.filename} is damaged: it has no header of its own")
    name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
    first = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    packed = info.compress_type == zipfile.ZIP_DEFLATED
    return Entry(_zip_name(info), path, first, info.compress_size, packed, info.CRC, stamp)


def list_shards(place: Place, shards: list[Entry], survey: Survey) -> Listing:
    """List the files of several tars as one source: a WebDataset, or a sample set's shards."""
    found = Collector(place)
    found.survey = survey
    for shard in shards:
        list_tar(found, place, shard.path, shard.stamp)
    return found.listing()


def check_one_picture_each(listing: Listing, name: str) -> None:
    """Raise DatasetError where the samples of a WebDataset hold several pictures: image and mask.

    A sample is what has the same path up to the first dot; what follows says which part it is.
    """
    parts, has_several = Counter[str](), False
    for _, entries in itertools.groupby(listing.pictures, lambda entry: _sample_of(entry)[0]):
        archives = Counter[str]()  # names may come again in each
        for entry in entries:
            if len(parts) <= _MOST_PARTS:
                parts[_sample_of(entry)[1]] += 1
            archives[archive_of(entry)] += 1
        has_several = has_several or max(archives.values()) > 1
    is_webdataset = len(parts) <= _MOST_PARTS and min(parts.values(), default=0) > 1
    if has_several and is_webdataset:
        kinds = ", ".join(f"{part} {count}" for part, count in sorted(parts.items()))
        raise DatasetError(
            f"{name} holds several pictures of each sample ({kinds}); pack again the one kind that "
            "is to be trained on"
        )


def _sample_of(entry: Entry) -> tuple[str, str]:
    """Return which sample of a WebDataset an entry belongs to, and which part of it it is."""
    folder, _, file = entry.name.rpartition("/")
    key, _, part = file.partition(".")
    return f"{folder}/{key}", part.lower()
