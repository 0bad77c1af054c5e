"""Finds the classes of pictures: in their folders' names, and in lists beside them."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from orchestrator.artifacts.datasets.catalog import Entry, Names, archive_of
from orchestrator.artifacts.datasets.entries import (
    CLASS_SUFFIX,
    LIST,
    Listing,
    entry_name,
    read_entry,
)
from orchestrator.artifacts.datasets.label_values import check_all_named, named_or_numbered
from orchestrator.artifacts.datasets.labels import (
    ClassLabels,
    labels_from_names,
    labels_from_numbers,
)
from orchestrator.artifacts.datasets.left_out import parts_of_sets
from orchestrator.artifacts.datasets.places import Place
from orchestrator.errors import DatasetError

LabelFinder = Callable[[], ClassLabels | None]  # None: there could be labels, and there are none


def labels_beside(listing: Listing) -> dict[str, LabelFinder]:
    """Return what finds the labels of pictures, by kind, the surest kind first."""
    found: dict[str, LabelFinder] = {}
    names = Names(listing.pictures)
    for name, entry in listing.others.items():
        if PurePosixPath(name).name == LIST:
            found["list"] = lambda name=name, entry=entry: _from_list(  # type: ignore[misc]
                names,
                PurePosixPath(name).parent,
                read_entry(listing.place, entry),
                entry_name(listing.place, entry),
            )
    if listing.classes:
        found["members"] = lambda: _from_members(listing)
    if any("/" in name for name in names):
        found["folders"] = lambda: labels_from_folders(names, listing.place.name)
    return found


def count_label_files(listing: Listing) -> None:
    """Tell the files that labels are read from apart from those that are left out."""
    lists = sum(PurePosixPath(name).name == LIST for name in listing.others)
    if lists:
        listing.survey.take_as_labels(LIST, lists)
    elif listing.classes:
        listing.survey.take_as_labels(CLASS_SUFFIX, len(listing.classes))


def labels_from_folders(names: Sequence[str], source: str) -> ClassLabels:
    """Take the first folder that not all images share as the name of an image's class.

    Raises:
        DatasetError: An image lies beside the folders, or they are parts as train and test.
    """
    shared = _shared_folders(names)
    classes = [_folder(name, shared) for name in names]
    check_all_named(names, classes, f"{source}: dataset.labels: folders")
    if parts_of_sets(classes) == set(classes) and len(set(classes)) > 1:
        folders = ", ".join(sorted(set(classes)))
        raise DatasetError(
            f"{source} holds the folders {folders}, which look like parts of a set and not like "
            "classes; give one of them as the source"
        )
    return labels_from_names(classes)


def _shared_folders(names: Sequence[str]) -> int:
    """Return how many folders above the classes all images share, without holding their paths."""
    first, shared, deepest = PurePosixPath(names[0]).parts[:-1], 1 << 30, 0
    for name in names:
        folders = PurePosixPath(name).parts[:-1]
        same = takewhile(lambda pair: pair[0] == pair[1], zip(first, folders, strict=False))
        shared, deepest = min(shared, sum(1 for _ in same)), max(deepest, len(folders))
    return max(0, shared - 1) if deepest == shared else shared  # one folder, so one class


def _folder(name: str, level: int) -> str:
    """Return the folder of an image at a level; "" where it lies above that."""
    folders = PurePosixPath(name).parts[:-1]
    return sys.intern(folders[level]) if len(folders) > level else ""


def _from_list(
    names: Sequence[str], folder: PurePosixPath, body: bytes, source: str
) -> ClassLabels | None:
    """Read the `dataset.json` of EDM and StyleGAN: {"labels": [[path, number], ...]} or null."""
    try:
        pairs = json.loads(body)["labels"]
        number_of = {str(folder / path): number for path, number in pairs or ()}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{source} is no list of labels: [[path, number], ...]") from error
    if not number_of:
        return None
    return _numbered([number_of.get(name) for name in names], names, source)


def _from_members(listing: Listing) -> ClassLabels:
    """Read the `.cls` member beside each picture of a WebDataset, in the same archive."""
    values: list[str | None] = []
    for picture in listing.pictures:
        entry = next(_classes_of(picture, listing), None)
        values.append(None if entry is None else sys.intern(_text(listing.place, entry)))
    return named_or_numbered(values, Names(listing.pictures), f"{listing.place.name}: its .cls")


def _classes_of(picture: Entry, listing: Listing) -> Iterator[Entry]:
    """Yield the `.cls` members that may be a picture's, the surest first."""
    archive = archive_of(picture)
    for key in _keys(picture.name):
        found = listing.classes.find(key, archive or key)
        if found is not None:
            yield found


def _keys(name: str) -> Iterator[str]:
    """Yield where the class of a picture may stand: before its ending, or before all of them."""
    folder, _, file = name.rpartition("/")
    for stem in (file.rpartition(".")[0], file.partition(".")[0]):
        yield f"{folder}/{stem}{CLASS_SUFFIX}" if folder else f"{stem}{CLASS_SUFFIX}"


def _text(place: Place, entry: Entry) -> str:
    return read_entry(place, entry).decode("utf-8", "replace").strip()


def _numbered(values: Sequence[Any], names: Sequence[str], source: str) -> ClassLabels:
    classes = ["" if value is None else str(value) for value in values]
    check_all_named(names, classes, source)
    try:
        numbers = np.array([int(value) for value in values], np.int64)
        are_whole = all(int(value) == float(value) for value in values)
    except (ValueError, TypeError, OverflowError) as error:
        raise DatasetError(f"{source} holds labels that are no whole numbers") from error
    if not are_whole:
        raise DatasetError(f"{source} holds labels that are no whole numbers")
    return labels_from_numbers(numbers, source)
