"""The matrix of a sweep: which settings differ between its runs, and the document of each run.

Keys may be written with dots (`training.seed: [0, 1]`) or nested, as in a job file.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from orchestrator.specs.document import Document

MAX_RUNS = 256
_FIXED = ("kind", "name")

_Way = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Axis:
    """A field that differs between the runs.

    Attributes:
        way: Its keys within the job.
        values: What it takes.
    """

    way: _Way
    values: list[Any]

    @property
    def key(self) -> str:
        return ".".join(self.way)

    @property
    def place(self) -> _Way:
        return ("matrix", *self.way)


def unfold_matrix(document: Document) -> None:
    """Turn a matrix's keys with dots into keys within keys, so that `--set` meets one form.

    Raises:
        BadInputError: A key is given twice.
    """
    matrix = document.value.get("matrix")
    if not isinstance(matrix, dict):
        return
    unfolded = Document(document.source, {}, {})
    for way, written, values in list(_leaves(matrix)):
        try:
            if _holds(unfolded.value, way):
                raise KeyError(".".join(way))
            unfolded.put(way, values)
        except KeyError as error:
            message = f"matrix key {error.args[0]} is given twice"
            raise document.fault(("matrix", *written), message) from error
        lines = document.lines_below(("matrix", *written))
        unfolded.lines.update({("matrix", *way, *rest): line for rest, line in lines.items()})
    document.lines.update(unfolded.lines)
    document.value["matrix"] = unfolded.value


def _leaves(
    matrix: Mapping[str, Any], written: _Way = (), way: _Way = ()
) -> Iterator[tuple[_Way, _Way, Any]]:
    """Yield (key path, keys as they are written, values) of each field that is varied."""
    for key, value in matrix.items():
        inner, keys = (*written, key), (*way, *key.split("."))
        if isinstance(value, dict):
            yield from _leaves(value, inner, keys)
        else:
            yield keys, inner, value


def _holds(value: Any, way: _Way) -> bool:
    for key in way:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def runs(document: Document) -> list[tuple[dict[str, JsonValue], Document]]:
    """Return what each run of a sweep has of its own, by key, and the document of its job.

    Args:
        document: The sweep, its matrix unfolded.

    Raises:
        BadInputError: The matrix is empty, too large, or sets what cannot be set.
    """
    axes = [_Axis(way, values) for way, _, values in _leaves(document.value["matrix"])]
    for axis in axes:
        _check(document, axis)
    num_runs = math.prod(len(axis.values) for axis in axes) if axes else 0
    if not 1 <= num_runs <= MAX_RUNS:
        message = f"matrix has {num_runs} combinations; give 1 to {MAX_RUNS}"
        raise document.fault(("matrix",), message)
    choices = itertools.product(*(range(len(axis.values)) for axis in axes))
    return [_run(document, dict(zip(axes, chosen, strict=True))) for chosen in choices]


def _check(document: Document, axis: _Axis) -> None:
    values, place = axis.values, axis.place
    if not isinstance(values, list) or not values:
        message = f"matrix key {axis.key}: give a list of values, not {values!r}"
        raise document.fault(place, message)
    if axis.way[0] in _FIXED:
        message = f"matrix key {axis.key}: that cannot differ between the runs"
        raise document.fault(place, message)
    texts = [json.dumps(value, sort_keys=True) for value in values]
    for index, text in enumerate(texts):
        if text in texts[:index]:
            message = f"matrix key {axis.key}: {text} is given twice"
            raise document.fault((*place, index), message)


def _run(document: Document, chosen: Mapping[_Axis, int]) -> tuple[dict[str, JsonValue], Document]:
    job = document.part(("job",))
    for axis, index in chosen.items():
        _set(job, document, axis, index)
    return {axis.key: axis.values[index] for axis, index in chosen.items()}, job


def _set(job: Document, document: Document, axis: _Axis, index: int) -> None:
    """Set one varied value, and have messages name the place in the matrix that it came from."""
    try:
        job.put(axis.way, axis.values[index])
    except KeyError as error:
        message = f"matrix key {axis.key}: {error.args[0]} holds no keys"
        raise document.fault(axis.place, message) from error
    if axis.place in document.overrides:
        job.overrides[axis.way] = document.overrides[axis.place]
        return
    line = document.lines.get((*axis.place, index)) or document.lines.get(axis.place)
    if line:
        job.lines[axis.way] = line
