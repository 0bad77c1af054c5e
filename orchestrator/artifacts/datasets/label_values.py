"""Classes out of labels as people write them: numbers of any type, names, one column a class."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.labels import (
    ClassLabels,
    labels_from_names,
    labels_from_numbers,
)
from orchestrator.counts import few
from orchestrator.errors import DatasetError

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?", re.ASCII)
# What spreadsheets and pandas write where there is no number.
_MISSING = frozenset({"nan", "na", "n/a", "null", "none", "-", "?"})
_NAMED = 3
_ADVICE = "save one whole number from 0, or one name, for each image"


def labels_from_array(values: NDArray[Any], source: str) -> ClassLabels:
    """Take labels from an array of any kind.

    Args:
        values: (N,) or (N, 1) whole numbers of any type, truth values, or text; or (N, K) with a
            single one in each row, whose column is the class.
        source: What messages call it.

    Raises:
        DatasetError: They are no classes.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        return _from_columns(values, source)
    if values.ndim == 1 and values.dtype.kind in "US":
        return labels_from_texts([_text(value) for value in values.tolist()], source)
    return labels_from_numbers(values, source)


def labels_from_values(values: Sequence[Any], source: str) -> ClassLabels:
    """Take labels from values as a table gives them. Raises: DatasetError."""
    missing = next((row for row, value in enumerate(values) if value is None), None)
    if missing is not None:
        raise DatasetError(f"{source} has no label in row {missing}")
    if all(isinstance(value, str | bytes) for value in values):
        return labels_from_texts([_text(value) for value in values], source)
    try:
        array = np.array(values)
    except ValueError as error:
        raise DatasetError(f"{source} holds lists of different lengths; {_ADVICE}") from error
    return labels_from_array(array, source)


def labels_from_texts(values: Sequence[str], source: str) -> ClassLabels:
    """Take labels as numbers where all are whole numbers, else as names. Raises: DatasetError."""
    stripped = [value.strip() for value in values]
    return named_or_numbered(stripped, [f"row {row}" for row in range(len(stripped))], source)


def named_or_numbered(
    values: Sequence[str | None], names: Sequence[str], source: str
) -> ClassLabels:
    """Take labels as numbers where all are whole numbers, else as names.

    Args:
        values: One for each image; None or "" where it has none.
        names: What messages call the images.
        source: What messages call the labels' origin.

    Raises:
        DatasetError: An image has no class, or they are no class numbers.
    """
    labels = [value or "" for value in values]
    classes = {value for value in labels if value.lower() not in _MISSING}
    are_numbers = all(_WHOLE.fullmatch(value) for value in classes if value)
    if are_numbers and any(classes):
        labels = [value if value in classes else "" for value in labels]
    check_all_named(names, labels, source)
    if not are_numbers or not classes:
        return labels_from_names(labels)
    return labels_from_numbers(
        np.array([int(v.partition(".")[0]) for v in labels], np.int64), source
    )


def check_all_named(names: Sequence[str], classes: Sequence[str], what: str) -> None:
    """Raise DatasetError where an image has no class."""
    missing = [name for name, label in zip(names, classes, strict=True) if label == ""]
    if missing:
        raise DatasetError(f"{what} gives no class to {few(missing, _NAMED)}")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _from_columns(values: NDArray[Any], source: str) -> ClassLabels:
    """Read one-hot rows: the column of the one is the class. Raises: DatasetError."""
    is_one = values == 1
    if not ((is_one | (values == 0)).all() and (is_one.sum(axis=1) == 1).all()):
        raise DatasetError(
            f"{source} holds {values.shape[1]} values an image, and not a single 1 among zeros; "
            f"{_ADVICE}"
        )
    numbers = is_one.argmax(axis=1).astype(np.int64)
    return ClassLabels(numbers, tuple(map(str, range(values.shape[1]))))
