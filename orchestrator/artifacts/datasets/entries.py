"""Finds the pictures of a source, without reading them: in a folder, a prefix, a tar or a zip.

An entry says where the bytes of one picture lie, so that any part of a source can be read at once,
by any process. The order of a set is that of the entries' paths in bytes, wherever they lie.
"""

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from orchestrator.artifacts.datasets.catalog import Catalog, Entry
from orchestrator.artifacts.datasets.left_out import (
    DANGLING,
    EMPTY,
    HIDDEN,
    LOOP,
    MACOSX,
    NO_FILE,
    NO_IMAGE,
    UNREADABLE,
    Survey,
)
from orchestrator.artifacts.datasets.pictures import HEAD_BYTES, is_picture
from orchestrator.artifacts.datasets.places import WHOLE, LocalPlace, Place, StorePlace
from orchestrator.errors import DatasetError

MAX_FILE_BYTES = 256 << 20
CLASS_SUFFIX = ".cls"
_PNG = {".png", ".apng"}
_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}
SUFFIXES = frozenset(_PNG | _JPEG | {".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"})
# Told by their names alone, so that nothing of them is read. Camera raws begin like a TIFF.
_RAWS = {".cr2", ".nef", ".dng", ".arw", ".orf", ".rw2", ".raf", ".pef"}
_TEXTS = {".txt", ".json", ".csv", ".tsv", ".md", ".xml", ".yaml", ".yml", ".html", ".log", ".py"}
_ARCHIVES = {".tar", ".tgz", ".zip", ".gz", ".zst", ".7z", ".rar", ".parquet", ".npy", ".npz"}
_MODELS = {".pt", ".pth", ".pkl", ".safetensors", ".h5", ".hdf5", ".mdb", CLASS_SUFFIX}
_MEDIA = {".mp4", ".mov", ".avi", ".wav", ".mp3", ".pdf"}
LIST = "dataset.json"  # of EDM and StyleGAN
_LOOKED_FOR = frozenset(_ARCHIVES | {".tzst", ".txz", ".tbz", ".tbz2", ".xz", ".bz2"})
_MANY = 10_000  # files that nobody looks for
_OTHERS = frozenset(_RAWS | _TEXTS | _ARCHIVES | _MODELS | _MEDIA)


@dataclass
class Listing:
    """What lies in a source.

    Attributes:
        place: Where it lies.
        pictures: In order.
        others: What is left out as no image, by path, for those who look for labels or archives; of
            what is neither the first ones alone.
        classes: The `.cls` members of a WebDataset.
        survey: What was left out.
        picture_bytes: Of all pictures together, as they lie there.
        archive_bytes: Of each file of `others` that may be an archive, by path.
    """

    place: Place
    pictures: Catalog
    others: dict[str, Entry]
    survey: Survey
    classes: Catalog = field(default_factory=Catalog)
    picture_bytes: int = 0
    archive_bytes: dict[str, int] = field(default_factory=dict)


class Collector:
    """Sorts the files of a source into pictures and what is left out."""

    def __init__(self, place: Place) -> None:
        self.survey = Survey()
        self._place = place
        self._pictures = Catalog()
        self._others: dict[str, Entry] = {}
        self._classes = Catalog()
        self._picture_bytes = 0
        self._archive_bytes: dict[str, int] = {}

    def add(self, entry: Entry, size_bytes: int, head: Callable[[], bytes]) -> None:
        """Take a file in by its name, or by its first bytes where the name doesn't tell."""
        parts = PurePosixPath(entry.name).parts
        if "__MACOSX" in parts:
            self.survey.leave_out(MACOSX, entry.name)
            return
        if any(part.startswith(".") and part != ".." for part in parts):
            self.survey.leave_out(HIDDEN, entry.name)
            return
        suffix = PurePosixPath(entry.name).suffix.lower()
        taken = suffix in SUFFIXES or (suffix not in _OTHERS and is_picture(head()))
        if not taken:
            if suffix == CLASS_SUFFIX:
                self._classes.add(entry)
            is_looked_for = suffix in _LOOKED_FOR or parts[-1] == LIST
            if is_looked_for or len(self._others) < _MANY:
                self._others[entry.name] = entry
            if suffix in _LOOKED_FOR:
                self._archive_bytes[entry.name] = size_bytes
            self.survey.leave_out(NO_IMAGE, entry.name)
            return
        if size_bytes > MAX_FILE_BYTES:
            raise DatasetError(
                f"{self._place.full_name(entry.name)} has {size_bytes} bytes; "
                f"an image has {MAX_FILE_BYTES} at most"
            )
        self._pictures.add(entry)
        self._picture_bytes += size_bytes

    def listing(self) -> Listing:
        """Return what was found, in the order of the names' bytes.

        Raises:
            DatasetError: An archive holds a name twice: which of the two is meant?
        """
        twice = self._pictures.sort() or self._classes.sort()
        if twice is not None:
            raise DatasetError(
                f"{self._place.full_name(twice.path)} holds {twice.name} twice; "
                "pack it again with the one that is meant"
            )
        return Listing(
            self._place,
            self._pictures,
            self._others,
            self.survey,
            self._classes,
            self._picture_bytes,
            self._archive_bytes,
        )


def list_folder(folder: Path) -> Listing:
    """List a local folder; links are followed, but never in a circle."""
    place = LocalPlace(folder)
    collector = Collector(place)
    for name, status in _walk(folder, collector.survey):
        entry = Entry(name, name, stamp=f"{status.st_size} {status.st_mtime_ns}")
        collector.add(entry, status.st_size, partial(place.read, name, 0, HEAD_BYTES))
    return collector.listing()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _walk(folder: Path, survey: Survey) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path, status) of the plain files below a folder, whatever links lead there."""
    top = _Folder(str(folder), "", frozenset({_identity(folder.stat())}))
    waiting = [top]  # not by recursion: folders may lie deeper than Python's stack
    while waiting:
        here = waiting.pop()
        items = _items(here, survey)
        if not items:
            continue
        below = []
        for item in items:
            name = f"{here.prefix}{item.name}"
            status = _status(item, name, survey)
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                below += _entered(item, name, status, here, survey)
            elif stat.S_ISREG(status.st_mode):
                survey.links_followed += item.is_symlink()
                yield name, status
            else:
                survey.leave_out(NO_FILE, name)
        waiting += reversed(below)


@dataclass(frozen=True)
class _Folder:
    """A folder that is to be looked at: where, what its files are called, which it lies in."""

    path: str
    prefix: str
    above: frozenset[tuple[int, int]]


def _items(folder: _Folder, survey: Survey) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder.path) as scanned:
            items = sorted(scanned, key=lambda item: os.fsencode(item.name))
    except OSError:
        survey.leave_out(UNREADABLE, folder.prefix or folder.path)
        return []
    if not items and folder.prefix:
        survey.leave_out(EMPTY, folder.prefix.rstrip("/"))
    return items


def _status(item: "os.DirEntry[str]", name: str, survey: Survey) -> os.stat_result | None:
    try:
        return item.stat()
    except OSError:
        survey.leave_out(DANGLING if item.is_symlink() else UNREADABLE, name)
        return None


def _entered(
    item: "os.DirEntry[str]", name: str, status: os.stat_result, here: _Folder, survey: Survey
) -> list[_Folder]:
    """Return the folder to look at, or none where it leads back to one above it."""
    if _identity(status) in here.above:
        survey.leave_out(LOOP, name)
        return []
    survey.links_followed += item.is_symlink()
    return [_Folder(item.path, f"{name}/", here.above | {_identity(status)})]


def list_prefix(place: StorePlace) -> Listing:
    """List the objects below a prefix of a store."""
    collector = Collector(place)
    for info in place.store.list_objects(""):
        if info.key == "" or info.key.endswith("/"):
            continue  # what browsers of stores put there for an empty folder
        entry = Entry(info.key, info.key, stamp=info.etag)
        collector.add(entry, info.size_bytes, partial(place.read, info.key, 0, HEAD_BYTES))
    return collector.listing()


def read_entry(place: Place, entry: Entry) -> bytes:
    """Return the bytes of one picture. Raises: DatasetError."""
    if entry.size_bytes == 0:
        return b""
    data = place.read(entry.path, entry.first_byte, entry.size_bytes)
    if entry.size_bytes != WHOLE and len(data) < entry.size_bytes:
        raise DatasetError(f"{entry_name(place, entry)} is cut off")
    if entry.packed or entry.crc32 >= 0:
        return _unpacked(data, entry, entry_name(place, entry))
    return data


def _unpacked(data: bytes, entry: Entry, name: str) -> bytes:
    try:
        if entry.packed:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            data = unpacker.decompress(data, MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise DatasetError(f"{name} has more than {MAX_FILE_BYTES} bytes")
    except zlib.error as error:
        raise DatasetError(f"{name} is damaged: {error}") from error
    if zlib.crc32(data) != entry.crc32:
        raise DatasetError(f"{name} is damaged: its checksum does not fit")
    return data


def entry_name(place: Place, entry: Entry) -> str:
    """Return what messages call an entry."""
    if entry.path == entry.name:
        return place.full_name(entry.name)
    return f"{place.full_name(entry.path)}: {entry.name}"
