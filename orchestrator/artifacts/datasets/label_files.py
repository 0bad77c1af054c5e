"""Reads the labels of images from a file of their own: a CSV, an array, or one label a line."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from orchestrator.artifacts.datasets.arrays import is_array, read_vector
from orchestrator.artifacts.datasets.label_rows import LABEL_HEADERS, named_rows, rows_of
from orchestrator.artifacts.datasets.label_values import labels_from_array, named_or_numbered
from orchestrator.artifacts.datasets.labels import ClassLabels
from orchestrator.artifacts.datasets.places import Place
from orchestrator.artifacts.datasets.unpacking import PACKED, damage_translated, unpacked
from orchestrator.counts import counted, does, few
from orchestrator.errors import DatasetError

_MAX_BYTES = 1 << 30


def labels_from_file(
    place: Place, path: str, names: Sequence[str] | None, num_images: int
) -> ClassLabels:
    """Read labels from a file of their own.

    Args:
        place: Where it lies.
        path: A CSV of name,label, also with semicolons or tabs, of more columns where their heads
            say which are meant; or .npy or IDX, or a CSV of labels alone: one for each image. Any
            of them may be packed.
        names: Paths of the pictures within their source; None where they have no names.
        num_images: All images.

    Raises:
        DatasetError: It cannot be read, gives an image no class, or not one alone.
    """
    source = place.full_name(path)
    body = _body(place, path)
    if is_array(body[:8]):
        return labels_from_array(read_vector(place, path), source)
    rows = rows_of(body, source)
    pairs = named_rows(rows, lambda: _all_names(names or ()), source)
    if pairs is None:
        values = _values_alone([row[0].strip() for row in rows], num_images, source)
        return named_or_numbered(values, [f"row {n}" for n in range(num_images)], source)
    if names is None:
        raise DatasetError(
            f"{source} names files, but the images are an array; give one label a row"
        )
    label_of = _labels_by_name(pairs, names, source)
    keys = list(_looked_up(label_of, names, source))
    unused = _unused(label_of, keys)
    found = [None if key is None else label_of[key] for key in keys]
    if not any(found) and unused:
        raise DatasetError(
            f"{source} names none of the images: it has {unused[0]}, and they are called {names[0]}"
        )
    labels = named_or_numbered(found, names, source)
    return replace(labels, notes=_notes_on(unused, source))


def _body(place: Place, path: str) -> bytes:
    """Return a file's bytes, unpacked. Raises: DatasetError."""
    name = place.full_name(path)
    data = place.read(path)
    if not data.startswith(PACKED):
        return data
    with damage_translated(name), unpacked(io.BytesIO(data), name) as plain:
        data = plain.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise DatasetError(f"{name} has more than {_MAX_BYTES} bytes; labels are smaller")
    return data


def _all_names(names: Sequence[str]) -> set[str]:
    """Return what images may be called: by path, by file name, or that without ending."""
    paths = [PurePosixPath(name) for name in names]
    return {name for path in paths for name in (str(path), path.name, path.stem)}


def _unused(label_of: Mapping[str, str], keys: Sequence[str | None]) -> list[str]:
    """Return the names that are no image's, but for a header."""
    used = set(keys)
    unused = [name for name in label_of if name not in used]
    return unused[1:] if unused and label_of[unused[0]].lower() in LABEL_HEADERS else unused


def _notes_on(unused: Sequence[str], source: str) -> tuple[str, ...]:
    """Return a line on the rows that name no image."""
    if not unused:
        return ()
    rows = f"{counted(len(unused), 'row')} of {source}"
    return (f"{rows} {does(len(unused), 'name')} no image: {few(unused)}",)


def _values_alone(values: Sequence[str], num_images: int, source: str) -> Sequence[str]:
    """Return the labels of a file that has nothing else, without its header."""
    if len(values) == num_images + 1:
        others_are_numbers = all(value.isdigit() for value in values[1:])
        if values[0].lower() in LABEL_HEADERS or (others_are_numbers and not values[0].isdigit()):
            return values[1:]
    if len(values) != num_images:
        raise DatasetError(
            f"{source} has {counted(len(values), 'row')} for {counted(num_images, 'image')}"
        )
    return values


def _labels_by_name(
    rows: Sequence[Sequence[str]], names: Sequence[str], source: str
) -> dict[str, str]:
    has_backslashes = any("\\" in name for name in names)
    label_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        name, label = row[0].strip(), row[1].strip()
        if not has_backslashes:  # as Windows writes paths
            name = name.replace("\\", "/")
        name = name.removeprefix("./")
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
