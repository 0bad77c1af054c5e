"""Reads the labels of images from a file of their own: a CSV, an array, or one label a line."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from orchestrator.artifacts.datasets.arrays import is_array, read_vector
from orchestrator.artifacts.datasets.label_sources import named_or_numbered
from orchestrator.artifacts.datasets.labels import ClassLabels, labels_from_numbers
from orchestrator.artifacts.datasets.places import Place
from orchestrator.counts import counted
from orchestrator.errors import DatasetError

_HEADERS = frozenset({"label", "labels", "class", "classes", "target", "targets", "y"})
_NAMED = 3
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def labels_from_file(
    place: Place, path: str, names: Sequence[str] | None, num_images: int
) -> ClassLabels:
    """Read labels from a file of their own.

    Args:
        place: Where it lies.
        path: A CSV of name,label, also with semicolons or tabs; or .npy or IDX, or a CSV of labels
            alone: one for each image.
        names: Paths of the pictures within their source; None where they have no names.
        num_images: All images.

    Raises:
        DatasetError: It cannot be read, gives an image no class, or not one alone.
    """
    source = place.full_name(path)
    head = place.read(path, 0, 8)
    if is_array(head) or path.endswith(".gz"):
        return labels_from_numbers(read_vector(place, path), source)
    rows = _rows(place.read(path), source)
    if all(len(row) == 1 for row in rows):
        values = _values_alone([row[0].strip() for row in rows], num_images, source)
        return named_or_numbered(values, [f"row {n}" for n in range(num_images)], source)
    if names is None:
        raise DatasetError(
            f"{source} names files, but the images are an array; give one label a row"
        )
    label_of = _labels_by_name(rows, source)
    keys = list(_looked_up(label_of, names, source))
    found = [None if key is None else label_of[key] for key in keys]
    labels = named_or_numbered(found, names, source)
    return replace(labels, notes=_unused(label_of, keys, source))


def _unused(
    label_of: Mapping[str, str], keys: Sequence[str | None], source: str
) -> tuple[str, ...]:
    """Return a line on the rows that name no image, but for a header."""
    used = set(keys)
    unused = [name for name in label_of if name not in used]
    if unused and label_of[unused[0]].lower() in _HEADERS:
        unused = unused[1:]
    if not unused:
        return ()
    more = ", ..." if len(unused) > _NAMED else ""
    rows = f"{counted(len(unused), 'row')} of {source}"
    return (f"{rows} name no image: {', '.join(unused[:_NAMED])}{more}",)


def _rows(body: bytes, source: str) -> list[list[str]]:
    try:
        text = body.decode("utf-16" if body.startswith(_UTF_16) else "utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        delimiter = next((sign for sign in ",\t;" if sign in first), ",")
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{source} is no CSV of name,label in UTF-8: {error}") from error
    return [row for row in rows if row]


def _values_alone(values: Sequence[str], num_images: int, source: str) -> Sequence[str]:
    """Return the labels of a file that has nothing else, without its header."""
    if len(values) == num_images + 1:
        others_are_numbers = all(value.isdigit() for value in values[1:])
        if values[0].lower() in _HEADERS or (others_are_numbers and not values[0].isdigit()):
            return values[1:]
    if len(values) != num_images:
        raise DatasetError(
            f"{source} has {counted(len(values), 'row')} for {counted(num_images, 'image')}"
        )
    return values


def _labels_by_name(rows: Sequence[Sequence[str]], source: str) -> dict[str, str]:
    label_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise DatasetError(f"{source}, row {number}: expected name,label")
        name, label = row[0].strip().removeprefix("./"), row[1].strip()
        if label_of.setdefault(name, label) != label:
            raise DatasetError(
                f"{source}, row {number}: {name} has the class {label}, and {label_of[name]} above"
            )
    return label_of


def _looked_up(
    label_of: Mapping[str, str], names: Sequence[str], source: str
) -> Iterator[str | None]:
    """Yield what each image's label is given to: its path, file name, or that without ending."""
    paths = [PurePosixPath(name.removeprefix("./")) for name in names]
    files, stems = Counter(path.name for path in paths), Counter(path.stem for path in paths)
    for path in paths:
        if str(path) in label_of:
            yield str(path)
            continue
        for short, count in ((path.name, files[path.name]), (path.stem, stems[path.stem])):
            if short in label_of and count > 1:
                raise DatasetError(
                    f"{source} gives {short} a class, but {count} images are called so; "
                    f"name them by path, as {path}"
                )
        yield next((short for short in (path.name, path.stem) if short in label_of), None)
