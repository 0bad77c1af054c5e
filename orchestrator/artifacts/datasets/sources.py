"""Opens data sets wherever they are: a known name, a path, or an s3:// URI; by content."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from orchestrator.artifacts.datasets.archives import (
    TAR_SUFFIXES,
    check_one_picture_each,
    list_shards,
    list_tar,
)
from orchestrator.artifacts.datasets.array_sources import (
    ARRAY_SUFFIXES,
    open_array_file,
    open_array_folder,
    open_zip,
)
from orchestrator.artifacts.datasets.arrays import (
    EMPTY_ZIP_MAGIC,
    ZIP_MAGIC,
    Block,
    is_array,
)
from orchestrator.artifacts.datasets.beside import leave_pictures_out, pictures_are_beside
from orchestrator.artifacts.datasets.catalog import Catalog, Entry
from orchestrator.artifacts.datasets.entries import (
    Collector,
    Listing,
    list_folder,
    list_prefix,
)
from orchestrator.artifacts.datasets.label_sources import LabelFinder
from orchestrator.artifacts.datasets.labels import labels_from_numbers
from orchestrator.artifacts.datasets.left_out import COLUMN, NO_IMAGE, Survey
from orchestrator.artifacts.datasets.opened import Source, hash_of, pictures_of
from orchestrator.artifacts.datasets.pictures import is_picture, is_tiff
from orchestrator.artifacts.datasets.places import LocalPlace, Place, StorePlace
from orchestrator.artifacts.datasets.refs import DIGITS
from orchestrator.artifacts.datasets.refusals import refuse_kind, refuse_source
from orchestrator.artifacts.datasets.tables import PARQUET_MAGIC, ParquetImages
from orchestrator.artifacts.datasets.unpacking import (
    PACKED,
    damage_translated,
    unpacked,
    unpacked_place,
)
from orchestrator.artifacts.datasets.wide_pictures import count_tiff_pages, tiff_pages
from orchestrator.errors import DatasetError
from orchestrator.store.objects import ObjectStore

_DIGITS_FILE = Path(__file__).parent / "data/digits.csv.gz"  # the NOTICE is beside it
_HEAD_BYTES = 512
_TAR_MAGIC_AT = 257


def open_source(source: str, scratch: Path, open_bucket: Callable[[str], ObjectStore]) -> Source:
    """Find the images of a source.

    Args:
        source: What `resolve_source` returned.
        scratch: Folder for an unpacked copy of a packed tar, in use as long as the source is.
        open_bucket: Opens an s3:// URI.

    Raises:
        DatasetError: The source cannot be used; the message names the file.
    """
    if source == DIGITS:
        return _digits()
    if not source.startswith("s3://"):
        path = Path(source)
        if path.is_dir():
            return _open_listing(list_folder(path), scratch)
        if not path.is_file():
            message = "it is no plain file" if path.exists() else "there is no such file or folder"
            raise DatasetError(f"data set {source}: {message}")
        status = path.stat()
        place, stamp = LocalPlace(path.parent), f"{status.st_size} {status.st_mtime_ns}"
        return _open_file(place, path.name, stamp, scratch)
    folder, _, name = source.rpartition("/")
    if source.removeprefix("s3://").startswith("/") or source == "s3://":
        raise DatasetError(f"data set {source!r} must look like s3://bucket/key")
    if name and folder != "s3:/":
        bucket = open_bucket(folder)
        info = next((i for i in bucket.list_objects(name) if i.key == name), None)
        if info is not None:
            return _open_file(StorePlace(bucket), name, info.etag, scratch)
    return _open_listing(list_prefix(StorePlace(open_bucket(source))), scratch)


def _open_listing(listing: Listing, scratch: Path) -> Source:
    """Open a folder or a prefix: its pictures, else its tars, Parquet files or arrays."""
    files = [entry for _, entry in sorted(listing.others.items())]
    for suffixes, open_files in (
        (TAR_SUFFIXES, _open_shards),
        ((".parquet",), _open_tables),
        (ARRAY_SUFFIXES, _open_arrays),
    ):
        found = [entry for entry in files if entry.name.lower().endswith(suffixes)]
        if not found or (listing.pictures and not pictures_are_beside(listing, found)):
            continue
        leave_pictures_out(listing)
        for entry in found:
            listing.survey.take_back(NO_IMAGE, entry.name)
        return open_files(listing, found, scratch)
    return pictures_of(listing, listing.place.name)


def _open_shards(listing: Listing, tars: list[Entry], scratch: Path) -> Source:
    place = unpacked_place(listing.place, tars, scratch)
    shards = list_shards(place, tars, listing.survey)
    check_one_picture_each(shards, listing.place.name)
    return pictures_of(shards, listing.place.name)


def _open_tables(listing: Listing, tables: list[Entry], scratch: Path) -> Source:
    del scratch
    stamp = hash_of(entry.stamp for entry in tables)
    table = ParquetImages(listing.place, [entry.path for entry in tables])
    source = _table(table, stamp, listing.survey)
    source.survey.note_parts(entry.name for entry in tables)
    return source


def _open_arrays(listing: Listing, arrays: list[Entry], scratch: Path) -> Source:
    del scratch
    return open_array_folder(listing, arrays)


def _open_file(place: Place, path: str, stamp: str, scratch: Path) -> Source:
    name = place.full_name(path)
    head = place.read(path, 0, _HEAD_BYTES)
    if head.startswith(PACKED):
        return _open_packed(place, path, stamp, scratch)
    if is_array(head):
        return open_array_file(place, path, stamp)
    if head.startswith((ZIP_MAGIC, EMPTY_ZIP_MAGIC)):
        return open_zip(place, path, stamp)
    if head.startswith(PARQUET_MAGIC):
        return _table(ParquetImages(place, [path]), stamp, Survey())
    if is_picture(head):
        return _open_picture(place, path, stamp, is_tiff(head))
    refuse_source(head, name)
    found = Collector(place)
    if not _is_tar(head):
        _check_old_tar(place, path, head)
    list_tar(found, place, path, stamp)
    return _samples(found.listing(), name)


def _is_tar(head: bytes) -> bool:
    """Tell by its first bytes whether a file is a tar of any kind but the oldest."""
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"


def _samples(listing: Listing, name: str) -> Source:
    """Open the pictures of a tar. Raises: DatasetError, there are several of a sample."""
    check_one_picture_each(listing, name)
    return pictures_of(listing, name)


def _check_old_tar(place: Place, path: str, head: bytes) -> None:
    """Raise DatasetError unless a file without the mark of a tar is one of the old kind."""
    try:
        list_tar(Collector(place), place, path, "")
    except DatasetError as error:
        refuse_kind(head, place.full_name(path))
        raise DatasetError(
            f"{place.full_name(path)} cannot be read: it is no picture, no array (.npy, .npz, "
            "IDX), no archive (tar, zip) and no Parquet file"
        ) from error
    if not any(head):  # as an empty tar begins
        refuse_kind(head, place.full_name(path))


def _open_packed(place: Place, path: str, stamp: str, scratch: Path) -> Source:
    name = place.full_name(path)
    with damage_translated(name), place.open(path) as file, unpacked(file, name) as plain:
        head = plain.read(_HEAD_BYTES)
    if is_array(head):
        return open_array_file(place, path, stamp)
    refuse_source(head, name)
    if not _is_tar(head):  # which begins with the name of its first file, as "{3F25}.png"
        refuse_kind(head, name)
    if is_picture(head) or head.startswith((ZIP_MAGIC, PARQUET_MAGIC)):
        raise DatasetError(f"{name} is one packed file, no tar; unpack it first")
    copy = unpacked_place(place, [Entry(path, path, stamp=stamp)], scratch)
    found = Collector(copy)
    list_tar(found, copy, path, stamp)
    return _samples(found.listing(), name)


def _open_picture(place: Place, path: str, stamp: str, is_stack: bool) -> Source:
    name = place.full_name(path)
    if is_stack:
        with place.open(path) as file:
            num_pages = count_tiff_pages(file, name)
        if num_pages > 1:
            return _stack(place, path, num_pages, stamp)
    listing = Listing(place, Catalog([Entry(path, path, stamp=stamp)]), {}, Survey())
    return pictures_of(listing, name)


def _stack(place: Place, path: str, num_pages: int, stamp: str) -> Source:
    def blocks(start: int, stop: int) -> Iterator[Block]:
        name = place.full_name(path)
        with place.open(path) as file:
            for index, page in enumerate(tiff_pages(file, name)):
                if start <= index < stop:
                    yield Block(index, page[np.newaxis], f"{name}: page {index}")

    return Source(place.full_name(path), num_pages, Survey(), blocks=blocks, stamp=stamp)


def _table(table: ParquetImages, stamp: str, survey: Survey) -> Source:
    for column in table.left_out:
        survey.leave_out(COLUMN, column)
    labels: dict[str, LabelFinder] = {"column": table.labels} if table.has_labels else {}
    return Source(
        table.name, table.num_images, survey, encoded=table.encoded, labels=labels, stamp=stamp
    )


def _digits() -> Source:
    """Return the 1,797 handwritten digits of UCI, (8, 8, 1), 0..16 spread to 0..255."""
    # A row: 64 pixels and the digit.
    table = np.loadtxt(_DIGITS_FILE, dtype=np.uint8, delimiter=",")
    images = np.round(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return Source(
        DIGITS,
        len(images),
        Survey(),
        blocks=lambda start, stop: iter([Block(start, images[start:stop], DIGITS)]),
        labels={"array": lambda: labels_from_numbers(table[:, 64], DIGITS)},
        stamp=DIGITS,
    )
