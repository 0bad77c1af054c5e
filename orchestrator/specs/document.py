"""A job file as it was read: plain values, and where each of them stands, for messages."""

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import BadInputError, one_line
from orchestrator.specs.set_values import check_whole, is_written_as_yaml, typed_or_text
from orchestrator.specs.variables import Variables
from orchestrator.specs.yaml_nodes import Location, plain_mapping

MAX_SIZE_BYTES = 256 * 1024
STDIN = "standard input"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        source: Its path as the user gave it.
        value: The top-level mapping, in plain Python types.
        lines: Line number (from 1) of each value, by its way from the top.
        overrides: The `--set` option that gave a value, by its way from the top.
        variables: The variables of the environment that it names, with what they held.
    """

    source: str
    value: dict[str, Any]
    lines: dict[Location, int]
    overrides: dict[Location, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def gives(self, location: Location) -> bool:
        """Tell whether a value was written, in the file or as an override, and is no default."""
        return location in self.lines or location in self.overrides

    def where(self, location: Location) -> str:
        """Return "file:line" or the option that a value came from, or the nearest one around it."""
        if location in self.overrides:
            return f"--set {self.overrides[location]!r}"
        while location and location not in self.lines:
            location = location[:-1]
        line = self.lines.get(location)
        return f"{self.source}:{line}" if line else self.source

    def fault(self, location: Location, message: str) -> BadInputError:
        """Return the error that says what is wrong at a place, in one line whatever was written."""
        return BadInputError(f"{self.where(location)}: {one_line(message)}")

    def part(self, location: Location) -> "Document":
        """Return a copy of the mapping at a place, as a document that still names the lines."""
        value: Any = self.value
        for key in location:
            value = value[key]
        return Document(
            self.source,
            copy.deepcopy(value),
            self.lines_below(location),
            _below(self.overrides, location),
        )

    def lines_below(self, location: Location) -> dict[Location, int]:
        """Return the lines of a place and of what it holds, by the way from there."""
        return _below(self.lines, location)

    def override(self, option: str) -> None:
        """Set a value as `--set a.b=value` says.

        Raises:
            BadInputError: It is not of that form, or a key on its way holds no keys.
        """
        path, separator, text = option.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise BadInputError(f"--set {option!r}: write it as key.key=value")
        value = parse_value(text)
        try:
            self.put(keys, value)
        except KeyError as error:
            raise BadInputError(f"--set {option!r}: {error.args[0]} holds no keys") from error
        self.overrides.update({tuple(keys[: end + 1]): option for end in range(len(keys))})

    def put(self, keys: Sequence[str], value: Any) -> None:
        """Set the value at the end of a key path.

        Raises:
            KeyError: A key on the way holds no keys; the error names it.
        """
        inner = self.value
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise KeyError(key)
        inner[keys[-1]] = value


def _below(notes: Mapping[Location, _T], location: Location) -> dict[Location, _T]:
    depth = len(location)
    return {place[depth:]: note for place, note in notes.items() if place[:depth] == location}


def load_document(path: Path, environment: Mapping[str, str] | None = None) -> Document:
    """Read a job file, or standard input where the path is `-`.

    Args:
        path: The file.
        environment: What `${NAME}` in it may name; None to leave such a text as it is.

    Raises:
        BadInputError: It cannot be read, is too large, is no YAML 1.2 or no mapping.
    """
    if str(path) == "-":
        return parse_document(_decoded(sys.stdin.buffer.read(), STDIN), STDIN, environment)
    return parse_document(_read(path), str(path), environment)


def parse_document(
    text: str, source: str, environment: Mapping[str, str] | None = None
) -> Document:
    """Parse a job file's text; `source` is what messages call it.

    Raises:
        BadInputError: It is no YAML 1.2 or no mapping, or names a variable that it cannot have.
    """
    variables = None if environment is None else Variables(environment)
    value, lines = plain_mapping(text, source, variables.fill_in if variables else None)
    return Document(source, value, lines, variables=variables.used if variables else {})


def parse_value(text: str) -> Any:
    """Return the value that `--set` gives: text as it stands, or what YAML reads as another kind.

    Raises:
        BadInputError: It is quoted or bracketed, and no YAML.
    """
    if not is_written_as_yaml(text):
        return typed_or_text(text, _read_value)
    check_whole(text)
    return _read_value(text.strip())


def _read_value(text: str) -> Any:
    try:
        return plain_mapping(f"value: {text}\n", "")[0]["value"]
    except BadInputError as error:
        raise BadInputError(f"{text!r} is no YAML value; quote it") from error


def _decoded(body: bytes, source: str) -> str:
    if len(body) > MAX_SIZE_BYTES:
        size = len(body)
        raise BadInputError(f"{source}: {size} bytes; a job file has {MAX_SIZE_BYTES} at most")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise BadInputError(f"{source}:{line}: not a text file in UTF-8") from error


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_SIZE_BYTES:
            raise BadInputError(f"{path}: {size} bytes; a job file has {MAX_SIZE_BYTES} at most")
        return _decoded(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise BadInputError(f"{path}: cannot be read: {reason}") from error
