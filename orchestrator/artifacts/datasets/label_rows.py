"""The rows of a file of labels, (name, label) or labels alone, out of what spreadsheets write."""

import codecs
import csv
import io
from collections.abc import Callable, Collection, Sequence

from orchestrator.counts import counted
from orchestrator.errors import DatasetError

LABEL_HEADERS = frozenset(
    {"label", "labels", "class", "classes", "category", "target", "targets", "y"}
)
_NAME_HEADERS = frozenset(
    {
        *("name", "names", "file", "files", "filename", "file_name", "path", "filepath"),
        *("file_path", "image", "images", "image_id", "image_name", "image_path", "img"),
        *("key", "id"),
    }
)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MANY = 6  # of more columns than these, some are named
Row = Sequence[str]


def rows_of(body: bytes, source: str) -> list[list[str]]:
    """Return the rows of a CSV with commas, semicolons or tabs, without empty columns at the end.

    Raises:
        DatasetError: It is no text, or no CSV.
    """
    _refuse_other_kinds(body, source)
    try:
        text = body.decode("utf-16" if body.startswith(_UTF_16) else "utf-8-sig")
        first = text.lstrip().replace("\r", "\n").partition("\n")[0]
        delimiter = next((sign for sign in ",\t;" if sign in first), ",")
        rows = list(csv.reader(io.StringIO(text, newline=None), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{source} is no CSV of name,label in UTF-8: {error}") from error
    rows = [row for row in rows if any(value.strip() for value in row)]
    while rows and len(rows[0]) > 2 and all(len(r) == len(rows[0]) and not r[-1] for r in rows):
        rows = [row[:-1] for row in rows]
    return rows


def _refuse_other_kinds(body: bytes, source: str) -> None:
    if body.startswith((b"{", b"[")):
        raise DatasetError(f"{source} is JSON; write it as a CSV of name,label")
    if body.startswith(b"PK\x03\x04"):
        raise DatasetError(f"{source} is a spreadsheet or a zip; save it as a CSV of name,label")


def named_rows(
    rows: Sequence[Row], names: Callable[[], Collection[str]], source: str
) -> list[Row] | None:
    """Return rows as (name, label); None where they hold labels alone.

    Args:
        rows: Of a CSV.
        names: Returns what the images may be called.
        source: What messages call it.

    Raises:
        DatasetError: It has more columns than two, and their heads do not say which are meant.
    """
    if all(len(row) == 1 for row in rows):
        pairs: list[Row] = [
            row[0].rsplit(None, 1) for row in rows
        ]  # "cat/1.png 3", as lists of Caffe have it
        if rows and all(len(pair) == 2 for pair in pairs):
            known = names()
            return pairs if all(pair[0].strip() in known for pair in pairs) else None
        return None
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise DatasetError(f"{source}, row {number}: expected name,label")
    heads = [value.strip().lower() for value in rows[0]]
    label, name = _place_of(heads, LABEL_HEADERS), _place_of(heads, _NAME_HEADERS)
    if len(heads) == 2 and not (label == 0 and name == 1):
        return [row[:2] for row in _alike(rows, source)]
    if label is None or name is None:
        listed = ", ".join(rows[0][:_MANY]) + (", ..." if len(heads) > _MANY else "")
        raise DatasetError(
            f"{source} has {counted(len(heads), 'column')} ({listed}), and which one is the class "
            "is not clear; keep two of them: name,label"
        )
    return [(row[name], row[label]) for row in _alike(rows, source)[1:]]


def _alike(rows: Sequence[Row], source: str) -> Sequence[Row]:
    """Raise DatasetError where a row has more or fewer columns than the first."""
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise DatasetError(
                f"{source}, row {number}: {counted(len(row), 'column')}, and the first row has "
                f"{len(rows[0])}"
            )
    return rows


def _place_of(heads: Sequence[str], known: frozenset[str]) -> int | None:
    """Return the one column whose head is known; None where none or several are."""
    places = [place for place, head in enumerate(heads) if head in known]
    return places[0] if len(places) == 1 else None
