"""Where the pictures of a source lie, shared through the store: one process lists, many read.

A worker then needs the page or two of its unit alone, however many pictures there are, and whoever
lists a bucket of a million objects does it once.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from orchestrator.artifacts.datasets.catalog import Entry
from orchestrator.artifacts.datasets.left_out import Survey
from orchestrator.artifacts.datasets.opened import Source, encoded_pictures
from orchestrator.artifacts.datasets.places import LocalPlace, Place, StorePlace
from orchestrator.store.codec import Codec
from orchestrator.store.keys import PreparationPaths
from orchestrator.store.objects import ObjectStore

PAGE = 4096
_THREADS = 8


@dataclass(frozen=True)
class SharedListing:
    """A source of which the pages of the listing are in the store.

    Attributes:
        name: What the source is called.
        num_images: Its pictures.
        stamp: Changes when the source does.
        place: The folder or the s3:// URI below which they lie.
    """

    name: str
    num_images: int
    stamp: str
    place: str


_LISTING = Codec(SharedListing, "listing of a source")


def share_listing(source: Source, store: ObjectStore, paths: PreparationPaths) -> None:
    """Put the places of a source's pictures, page by page; nothing where there are none to tell."""
    listing = source.listing
    if listing is None or not listing.place.origin:
        return
    pages = range(0, source.num_images, PAGE)

    def put(first: int) -> None:
        entries = [entry.to_json() for entry in listing.pictures[first : first + PAGE]]
        store.put(paths.listing_page(first // PAGE), json.dumps(entries).encode())

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(put, pages))
    head = SharedListing(source.name, source.num_images, source.stamp, listing.place.origin)
    store.put(paths.listing, _LISTING.encode(head))


def shared_source(
    store: ObjectStore, paths: PreparationPaths, open_bucket: Callable[[str], ObjectStore]
) -> Source | None:
    """Return a source whose listing another process shared; None if none did.

    Raises:
        DatasetError: This machine does not see where they lie.
    """
    head = _LISTING.value(store, paths.listing)
    if head is None:
        return None
    place = _place(head.place, open_bucket)
    first = next(_entries(store, paths, 0, 1))
    place.read(first.path, 0, 1)  # else every picture would look like a damaged one

    def encoded(start: int, stop: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
        return encoded_pictures(place, _entries(store, paths, start, stop))

    return Source(head.name, head.num_images, Survey(), encoded=encoded, stamp=head.stamp)


def _place(origin: str, open_bucket: Callable[[str], ObjectStore]) -> Place:
    if origin.startswith("s3://"):
        return StorePlace(open_bucket(origin))
    return LocalPlace(Path(origin))


def _entries(store: ObjectStore, paths: PreparationPaths, start: int, stop: int) -> Iterator[Entry]:
    for page in range(start // PAGE, -(-stop // PAGE)):
        rows = json.loads(store.get(paths.listing_page(page)).body)
        first = page * PAGE
        for row in rows[max(0, start - first) : stop - first]:
            yield Entry(*row)
