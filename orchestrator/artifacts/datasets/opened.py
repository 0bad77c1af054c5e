"""What a source of images is when it is open, wherever it lies and whatever it is packed in."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.artifacts.datasets.arrays import Block
from orchestrator.artifacts.datasets.catalog import Entry, Names
from orchestrator.artifacts.datasets.entries import Listing, entry_name, read_entry
from orchestrator.artifacts.datasets.label_sources import (
    LabelFinder,
    count_label_files,
    labels_beside,
)
from orchestrator.artifacts.datasets.left_out import Survey
from orchestrator.artifacts.datasets.places import Place
from orchestrator.artifacts.datasets.refusals import refuse_listing

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


def pictures_of(listing: Listing, name: str) -> Source:
    """Open the pictures of a listing as a source. Raises: DatasetError, there are none."""
    if not listing.pictures:
        refuse_listing(listing, name)
    count_label_files(listing)
    listing.survey.note_parts(Names(listing.pictures))
    return Source(
        name,
        len(listing.pictures),
        listing.survey,
        encoded=lambda start, stop: encoded_pictures(listing.place, listing.pictures[start:stop]),
        labels=labels_beside(listing),
        names=Names(listing.pictures),
        listing=listing,
        stamp=hash_of(entry.to_json() for entry in listing.pictures),
    )


def encoded_pictures(place: Place, entries: Iterable[Entry]) -> Encoded:
    """Yield (name, what returns the bytes) of pictures."""
    for entry in entries:
        yield entry_name(place, entry), lambda entry=entry: read_entry(place, entry)  # type: ignore[misc]


def hash_of(values: Iterable[object]) -> str:
    """Return the hash of a list as JSON, without holding either."""
    digest, before = hashlib.sha256(b"["), ""
    for value in values:
        digest.update(f"{before}{json.dumps(value)}".encode())
        before = ", "
    digest.update(b"]")
    return digest.hexdigest()
