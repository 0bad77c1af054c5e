"""Opens data sets wherever they are: a known name, a path, or an s3:// URI; told by content."""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from orchestrator.artifacts.datasets.archives import (
    PACKED,
    TarPlace,
    damage_translated,
    list_shards,
    list_tar,
    list_zip,
    unpack_to,
    unpacked,
)
from orchestrator.artifacts.datasets.arrays import (
    EMPTY_ZIP_MAGIC,
    ZIP_MAGIC,
    ArrayFile,
    Block,
    choose_images,
    choose_labels,
    is_array,
    npz_arrays,
    read_vector,
)
from orchestrator.artifacts.datasets.entries import (
    Collector,
    Entry,
    Listing,
    entry_name,
    list_folder,
    list_prefix,
    read_entry,
)
from orchestrator.artifacts.datasets.label_sources import LabelFinder, labels_beside
from orchestrator.artifacts.datasets.labels import labels_from_numbers
from orchestrator.artifacts.datasets.left_out import Survey
from orchestrator.artifacts.datasets.pictures import is_picture, is_tiff
from orchestrator.artifacts.datasets.places import LocalPlace, Place, StorePlace
from orchestrator.artifacts.datasets.refs import DIGITS
from orchestrator.artifacts.datasets.refusals import refuse_kind, refuse_listing
from orchestrator.artifacts.datasets.tables import PARQUET_MAGIC, ParquetImages
from orchestrator.artifacts.datasets.wide_pictures import count_tiff_pages, tiff_pages
from orchestrator.errors import DatasetError
from orchestrator.store.objects import ObjectStore

_DIGITS_FILE = Path(__file__).parent / "data/digits.csv.gz"  # the NOTICE is beside it
_HEAD_BYTES = 512
_TAR_MAGIC_AT = 257
_IDX_IMAGES = re.compile(r"images([-.])idx\d")

Encoded = Iterator[tuple[str, Callable[[], bytes]]]


@dataclass(frozen=True)
class Source:
    """A source that is open: any part of it can be read, in any order, as often as wanted.

    Attributes:
        name: What messages call it.
        num_images: All of them, damaged ones among them.
        survey: What was left out.
        encoded: Yields (name, what returns the bytes) of encoded pictures from one to another.
        blocks: Yields the images of an array from one to another. One of the two is there.
        labels: What finds labels, by kind, the surest first.
        names: Paths of the pictures within the source; None where they have no names.
        listing: Where the pictures lie; None where they are no files of their own.
        stamp: Changes when the source does.
    """

    name: str
    num_images: int
    survey: Survey
    encoded: Callable[[int, int], Encoded] | None = None
    blocks: Callable[[int, int], Iterator[Block]] | None = None
    labels: dict[str, LabelFinder] = field(default_factory=dict)
    names: Sequence[str] | None = None
    listing: Listing | None = None
    stamp: str = ""


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
            return _open_listing(list_folder(path))
        if not path.is_file():
            raise DatasetError(f"data set {source}: there is no such file or folder")
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
    return _open_listing(list_prefix(StorePlace(open_bucket(source))))


def _open_listing(listing: Listing) -> Source:
    """Open a folder or a prefix: its pictures, else its tars, else its Parquet files."""
    if not listing.pictures:
        tars = [e for n, e in sorted(listing.others.items()) if n.lower().endswith(".tar")]
        tables = [e for n, e in sorted(listing.others.items()) if n.lower().endswith(".parquet")]
        if tars:
            shards = list_shards(listing.place, tars, Listing(listing.place, [], {}, Survey()))
            return _pictures(shards, listing.place.name)
        if tables:
            stamp = _hash(entry.stamp for entry in tables)
            source = _table(ParquetImages(listing.place, [e.path for e in tables]), stamp)
            source.survey.note_parts(entry.name for entry in tables)
            return source
        refuse_listing(listing, listing.place.name)
    return _pictures(listing, listing.place.name)


def _pictures(listing: Listing, name: str) -> Source:
    if not listing.pictures:
        refuse_listing(listing, name)
    listing.survey.note_parts(entry.name for entry in listing.pictures)
    return Source(
        name,
        len(listing.pictures),
        listing.survey,
        encoded=lambda start, stop: encoded_pictures(listing.place, listing.pictures[start:stop]),
        labels=labels_beside(listing),
        names=[entry.name for entry in listing.pictures],
        listing=listing,
        stamp=_hash(entry.to_json() for entry in listing.pictures),
    )


def encoded_pictures(place: Place, entries: Iterable[Entry]) -> Encoded:
    """Yield (name, what returns the bytes) of pictures."""
    for entry in entries:
        yield entry_name(place, entry), lambda entry=entry: read_entry(place, entry)  # type: ignore[misc]


def _hash(values: Iterable[object]) -> str:
    """Return the hash of a list as JSON, without holding either."""
    digest, before = hashlib.sha256(b"["), ""
    for value in values:
        digest.update(f"{before}{json.dumps(value)}".encode())
        before = ", "
    digest.update(b"]")
    return digest.hexdigest()


def _open_file(place: Place, path: str, stamp: str, scratch: Path) -> Source:
    name = place.full_name(path)
    head = place.read(path, 0, _HEAD_BYTES)
    if head.startswith(PACKED):
        return _open_packed(place, path, stamp, scratch)
    if is_array(head):
        return _array(place, path, stamp)
    if head.startswith((ZIP_MAGIC, EMPTY_ZIP_MAGIC)):
        return _open_zip(place, path, stamp)
    if head.startswith(PARQUET_MAGIC):
        return _table(ParquetImages(place, [path]), stamp)
    if is_picture(head):
        return _open_picture(place, path, stamp, is_tiff(head))
    refuse_kind(head, name)
    found = Collector(place)
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] != b"ustar":
        _check_old_tar(place, path)
    list_tar(found, place, path, stamp)
    return _pictures(found.listing(), name)


def _check_old_tar(place: Place, path: str) -> None:
    """Raise DatasetError unless a file without the mark of a tar is one of the old kind."""
    try:
        list_tar(Collector(place), place, path, "")
    except DatasetError as error:
        raise DatasetError(
            f"{place.full_name(path)} cannot be read: it is no picture, no array (.npy, .npz, "
            "IDX), no archive (tar, zip) and no Parquet file"
        ) from error


def _open_packed(place: Place, path: str, stamp: str, scratch: Path) -> Source:
    name = place.full_name(path)
    with damage_translated(name), place.open(path) as file, unpacked(file, name) as plain:
        head = plain.read(_HEAD_BYTES)
    if is_array(head):
        return _array(place, path, stamp)
    refuse_kind(head, name)
    if is_picture(head) or head.startswith((ZIP_MAGIC, PARQUET_MAGIC)):
        raise DatasetError(f"{name} is one packed file, no tar; unpack it first")
    copy = scratch / "unpacked.tar"
    with place.open(path) as file:
        unpack_to(file, copy, name)
    unpacked_place = TarPlace(copy, name)
    found = Collector(unpacked_place)
    list_tar(found, unpacked_place, copy.name, stamp)
    return _pictures(found.listing(), name)


def _open_picture(place: Place, path: str, stamp: str, is_stack: bool) -> Source:
    name = place.full_name(path)
    if is_stack:
        with place.open(path) as file:
            num_pages = count_tiff_pages(file, name)
        if num_pages > 1:
            return _stack(place, path, num_pages, stamp)
    listing = Listing(place, [Entry(path, path, stamp=stamp)], {}, Survey())
    return _pictures(listing, name)


def _stack(place: Place, path: str, num_pages: int, stamp: str) -> Source:
    def blocks(start: int, stop: int) -> Iterator[Block]:
        name = place.full_name(path)
        with place.open(path) as file:
            for index, page in enumerate(tiff_pages(file, name)):
                if start <= index < stop:
                    yield Block(index, page[np.newaxis], f"{name}: page {index}")

    return Source(place.full_name(path), num_pages, Survey(), blocks=blocks, stamp=stamp)


def _open_zip(place: Place, path: str, stamp: str) -> Source:
    name = place.full_name(path)
    with damage_translated(name), place.open(path) as file, zipfile.ZipFile(file) as archive:
        arrays = npz_arrays(archive, name)
    if not arrays:
        found = Collector(place)
        list_zip(found, place, path, stamp)
        return _pictures(found.listing(), name)
    member = choose_images(arrays, name)
    source = _array(place, path, stamp, member)
    labels = choose_labels(arrays, member)
    for array in arrays:
        if array not in (member, labels):
            source.survey.leave_out("array", array)
    if labels is not None:
        source.labels["array"] = lambda: labels_from_numbers(
            read_vector(place, path, labels), f"{name}: {labels}"
        )
    return source


def _array(place: Place, path: str, stamp: str, member: str | None = None) -> Source:
    file = ArrayFile(place, path, member)
    labels: dict[str, LabelFinder] = {}
    beside = _idx_labels(place, path)
    if beside is not None:
        labels["array"] = lambda: labels_from_numbers(
            read_vector(place, beside), place.full_name(beside)
        )
    return Source(
        file.name, file.num_images, Survey(), blocks=file.blocks, labels=labels, stamp=stamp
    )


def _idx_labels(place: Place, path: str) -> str | None:
    """Return the IDX file of labels beside one of images, packed or not; None where none is."""
    name, changed = _IDX_IMAGES.subn(r"labels\1idx1", PurePosixPath(path).name)
    others = (name, f"{name}.gz", name.removesuffix(".gz")) if changed else ()
    beside = [str(PurePosixPath(path).with_name(other)) for other in others]
    return next((other for other in beside if _is_there(place, other)), None)


def _is_there(place: Place, path: str) -> bool:
    try:
        return bool(place.read(path, 0, 1))
    except DatasetError:
        return False


def _table(table: ParquetImages, stamp: str) -> Source:
    labels: dict[str, LabelFinder] = {"column": table.labels} if table.has_labels else {}
    return Source(
        table.name, table.num_images, Survey(), encoded=table.encoded, labels=labels, stamp=stamp
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
