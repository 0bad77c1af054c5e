"""Images and labels out of Parquet files, as the Hugging Face hub writes them."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator.artifacts.datasets.label_values import labels_from_values
from orchestrator.artifacts.datasets.labels import ClassLabels
from orchestrator.artifacts.datasets.places import Place
from orchestrator.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

PARQUET_MAGIC = b"PAR1"
_IMAGES = ("image", "img", "images", "png", "jpg", "bytes")
_LABELS = ("label", "labels", "class", "fine_label", "target")
_ROWS_AT_ONCE = 64


class ParquetImages:
    """The image column of one Parquet file, or of several one behind the other.

    Args:
        place: Where they lie.
        paths: The files, in order.

    Raises:
        DatasetError: A file is damaged, or has no column of images.
    """

    def __init__(self, place: Place, paths: Sequence[str]) -> None:
        self._place = place
        self._paths = paths
        self._rows: list[int] = []
        schemas: list[Any] = []
        for path in paths:
            with _opened(place, path) as table:
                self._rows.append(table.metadata.num_rows)
                schemas.append(table.schema_arrow)
        self._schema = schemas[0]
        self.name = place.full_name(paths[0]) if len(paths) == 1 else place.name
        self._column = _image_column(self._schema, place.full_name(paths[0]))
        self.num_images = sum(self._rows)
        if not self.num_images:
            raise DatasetError(f"{self.name} has no rows, so it holds no images")
        found = [name for name in _LABELS if name in self._schema.names]
        self._label_column = found[0] if found else None
        for path, schema in zip(paths, schemas, strict=True):
            _check_columns(schema, [self._column, *found[:1]], self._schema, place.full_name(path))

    @property
    def left_out(self) -> list[str]:
        """Other columns with pictures."""
        taken = (self._column, self._label_column)
        return [name for name in _fitting(self._schema) if name not in taken]

    @property
    def has_labels(self) -> bool:
        """Whether there is a column of labels."""
        return self._label_column is not None

    def encoded(self, start: int, stop: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield (name, what returns the bytes) of the images from `start` to `stop`."""
        first = 0
        for path, num_rows in zip(self._paths, self._rows, strict=True):
            lower, upper = max(start, first) - first, min(stop, first + num_rows) - first
            if lower < upper:
                name = self._place.full_name(path)
                for row, value in self._values(path, lower, upper):
                    where = f"{name}: row {row}"
                    yield where, lambda value=value, where=where: _bytes_of(value, where)  # type: ignore[misc]
            first += num_rows

    def _values(self, path: str, lower: int, upper: int) -> Iterator[tuple[int, Any]]:
        with _opened(self._place, path) as table:
            first = 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if first < upper and first + rows > lower:
                    batches = table.iter_batches(
                        _ROWS_AT_ONCE, row_groups=[group], columns=[self._column]
                    )
                    row = first
                    for batch in batches:
                        for value in batch.column(0):
                            if lower <= row < upper:
                                yield row, value.as_py()
                            row += 1
                first += rows

    def labels(self) -> ClassLabels:
        """Return the column of labels. Raises: DatasetError."""
        column = str(self._label_column)
        values: list[Any] = []
        for path in self._paths:
            with _opened(self._place, path) as table:
                values += table.read(columns=[column]).column(0).to_pylist()
        source = f"{self.name}: column {column}"
        labels = labels_from_values(values, source)
        names = _hub_names(self._schema, column)
        if not all(name.isdigit() for name in labels.names) or len(names) < len(labels.names):
            return labels
        return ClassLabels(labels.values, names)


@contextmanager
def _opened(place: Place, path: str) -> Iterator["pq.ParquetFile"]:
    """Open a Parquet file for as long as it is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with place.open(path) as file:
        try:
            yield pq.ParquetFile(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            name, cause = place.full_name(path), " ".join(str(error).split())
            raise DatasetError(f"{name} cannot be read as Parquet: {cause}") from error


def _fitting(schema: Any) -> list[str]:
    """Return the columns that may hold encoded images."""
    import pyarrow as pa

    return [
        field.name
        for field in schema
        if _holds_bytes(field.type)
        or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]


def _image_column(schema: Any, name: str) -> str:
    """Return the column of encoded images: binary, or a struct that has `bytes`."""
    fitting = _fitting(schema)
    for wanted in _IMAGES:
        if wanted in fitting:
            return wanted
    if len(fitting) != 1:
        found = ", ".join(schema.names)
        raise DatasetError(
            f"{name} needs its images as a column `image` of bytes, or of a struct with `bytes`; "
            f"its columns: {found}"
        )
    return str(fitting[0])


def _holds_bytes(kind: Any) -> bool:
    """Tell whether a column holds strings of bytes, stored in whatever way."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)


def _check_columns(schema: Any, columns: Sequence[str], first: Any, name: str) -> None:
    """Raise DatasetError unless a file has the columns of the first one, of the same types."""
    for column in columns:
        index = schema.get_field_index(column)
        if index < 0 or schema.field(index).type != first.field(column).type:
            raise DatasetError(
                f"{name} has no column {column} of {first.field(column).type} as the first file "
                f"has; its columns: {', '.join(map(str, schema.names))}"
            )


def _bytes_of(value: Any, name: str) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes")
    if not value:
        raise DatasetError(f"{name} holds no bytes of an image, only a path or nothing")
    return bytes(value)


def _hub_names(schema: Any, column: str) -> tuple[str, ...]:
    """Return the names of a column's classes, as the hub keeps them in a file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
