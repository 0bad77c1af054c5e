"""Finds the classes of pictures: in their folders' names, in lists beside them, in a CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from orchestrator.artifacts.datasets.arrays import is_array, read_vector
from orchestrator.artifacts.datasets.entries import Entry, Listing, read_entry
from orchestrator.artifacts.datasets.labels import (
    ClassLabels,
    labels_from_names,
    labels_from_numbers,
)
from orchestrator.artifacts.datasets.places import Place
from orchestrator.errors import DatasetError

LabelFinder = Callable[[], ClassLabels]
_LIST = "dataset.json"
_NAMED = 3


def labels_beside(listing: Listing) -> dict[str, LabelFinder]:
    """Return what finds the labels of pictures, by kind, the surest kind first."""
    found: dict[str, LabelFinder] = {}
    names = [entry.name for entry in listing.pictures]
    for name, entry in listing.others.items():
        if PurePosixPath(name).name == _LIST:
            found["list"] = lambda name=name, entry=entry: _from_list(  # type: ignore[misc]
                names, PurePosixPath(name).parent, read_entry(listing.place, entry), name
            )
    if any(name.endswith(".cls") for name in listing.others):
        found["members"] = lambda: _from_members(names, listing)
    if len({len(PurePosixPath(name).parts) > 1 for name in names}) and any("/" in n for n in names):
        found["folders"] = lambda: labels_from_folders(names, listing.place.name)
    return found


def labels_from_folders(names: Sequence[str], source: str) -> ClassLabels:
    """Take the first folder that not all images share as the name of an image's class.

    Raises:
        DatasetError: An image lies beside the folders.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders)))  # noqa: B905
    if all(len(parts) == shared for parts in folders):  # one folder, so one class
        shared = max(0, shared - 1)
    classes = [parts[shared] if len(parts) > shared else "" for parts in folders]
    _check_all_named(names, classes, f"{source}: dataset.labels: folders")
    return labels_from_names(classes)


def _check_all_named(names: Sequence[str], classes: Sequence[str], what: str) -> None:
    missing = [name for name, label in zip(names, classes, strict=True) if label == ""]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise DatasetError(f"{what} gives no class to {', '.join(missing[:_NAMED])}{more}")


def _from_list(
    names: Sequence[str], folder: PurePosixPath, body: bytes, source: str
) -> ClassLabels:
    """Read the `dataset.json` of EDM and StyleGAN: {"labels": [[path, number], ...]}."""
    try:
        pairs = json.loads(body)["labels"]
        number_of = {str(folder / path): number for path, number in pairs or ()}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{source} is no list of labels: [[path, number], ...]") from error
    if not number_of:
        raise DatasetError(f"{source} holds no labels")
    return _numbered([number_of.get(name) for name in names], names, source)


def _from_members(names: Sequence[str], listing: Listing) -> ClassLabels:
    """Read the `.cls` member beside each picture of a WebDataset."""
    values: list[str | None] = []
    for name in names:
        stem = name[: len(name) - len(PurePosixPath(name).suffix)]
        entry = listing.others.get(f"{stem}.cls")
        values.append(None if entry is None else _text(listing.place, entry))
    return _named_or_numbered(values, names, f"{listing.place.name}: the .cls members")


def _text(place: Place, entry: Entry) -> str:
    return read_entry(place, entry).decode("utf-8", "replace").strip()


def _named_or_numbered(
    values: Sequence[str | None], names: Sequence[str], source: str
) -> ClassLabels:
    if all(value is None or value.lstrip("-").isdigit() for value in values):
        return _numbered([None if v is None else int(v) for v in values], names, source)
    classes = [value or "" for value in values]
    _check_all_named(names, classes, source)
    return labels_from_names(classes)


def _numbered(values: Sequence[Any], names: Sequence[str], source: str) -> ClassLabels:
    classes = ["" if value is None else str(value) for value in values]
    _check_all_named(names, classes, source)
    try:
        numbers = np.array([int(value) for value in values], np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DatasetError(f"{source} holds labels that are no whole numbers") from error
    return labels_from_numbers(numbers, source)


def labels_from_file(
    place: Place, path: str, names: Sequence[str] | None, num_images: int
) -> ClassLabels:
    """Read labels from a file of their own.

    Args:
        place: Where it lies.
        path: A CSV of name,label; or .npy or IDX, or a CSV of labels alone: one for each image.
        names: Paths of the pictures within their source; None where they have no names.
        num_images: All images.

    Raises:
        DatasetError: It cannot be read, or gives an image no class.
    """
    source = place.full_name(path)
    head = place.read(path, 0, 8)
    if is_array(head) or path.endswith(".gz"):
        return labels_from_numbers(read_vector(place, path), source)
    try:
        rows = list(csv.reader(io.StringIO(place.read(path).decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{source} is no CSV of name,label: {error}") from error
    rows = [row for row in rows if row]
    if all(len(row) == 1 for row in rows):
        values = [row[0].strip() for row in rows[len(rows) - num_images :]]
        if len(rows) not in (num_images, num_images + 1):
            raise DatasetError(f"{source} has {len(rows)} rows for {num_images} images")
        return _named_or_numbered(values, [f"row {n}" for n in range(num_images)], source)
    if names is None:
        raise DatasetError(
            f"{source} names files, but the images are an array; give one label a row"
        )
    return _named_or_numbered(list(_looked_up(rows, names, source)), names, source)


def _looked_up(rows: list[list[str]], names: Sequence[str], source: str) -> Iterator[str | None]:
    label_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise DatasetError(f"{source}, row {number}: expected name,label")
        label_of[row[0].strip()] = row[1].strip()
    for name in names:  # by path, by file name, or by file name without its ending
        pure = PurePosixPath(name)
        yield label_of.get(name, label_of.get(pure.name, label_of.get(pure.stem)))
