"""Finds the pictures of tars and zips, read where they lie and never extracted."""

import itertools
import stat
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from orchestrator.artifacts.datasets.catalog import Entry, archive_of
from orchestrator.artifacts.datasets.entries import Collector, Listing
from orchestrator.artifacts.datasets.left_out import Survey
from orchestrator.artifacts.datasets.pictures import HEAD_BYTES
from orchestrator.artifacts.datasets.places import Place
from orchestrator.artifacts.datasets.unpacking import COPY_BYTES, damage_translated
from orchestrator.errors import DatasetError

TAR_SUFFIXES = (
    ".tar",
    *(f".tar.{packer}" for packer in ("gz", "zst", "xz", "bz2")),
    *(".tgz", ".tzst", ".txz", ".tbz", ".tbz2"),
)
_TAR_BLOCK_BYTES = 512
_LOCAL_HEADER_BYTES = 30
_MOST_PARTS = 8  # pictures of a sample
_UNIX = 3  # of the systems that a zip may be from


def list_tar(collector: Collector, place: Place, path: str, stamp: str) -> None:
    """Collect the files of an unpacked tar.

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
            collector.add(entry, member.size, partial(place.read, path, first, HEAD_BYTES))


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
    while piece := file.read(COPY_BYTES):
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


def list_zip(collector: Collector, place: Place, path: str, stamp: str) -> None:
    """Collect the files of a zip.

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
            collector.add(entry, info.file_size, partial(_head_of, archive, info))


def _head_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(HEAD_BYTES)


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
    collector = Collector(place)
    collector.survey = survey
    for shard in shards:
        list_tar(collector, place, shard.path, shard.stamp)
    return collector.listing()


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
