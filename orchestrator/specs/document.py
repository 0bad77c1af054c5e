"""Reads YAML 1.2 job files: plain values, and the line of each one for messages.

A document is never executed: no tags, no class names, and a bound on size and on what its aliases
unfold to. The same key twice is an error.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from orchestrator.errors import BadInputError
from orchestrator.specs.set_values import check_whole, is_written_as_yaml, typed_or_text

MAX_SIZE_BYTES = 256 * 1024
_MAX_VALUES = 20_000

Location = tuple[str | int, ...]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        source: Its path as the user gave it.
        value: The top-level mapping, in plain Python types.
        lines: Line number (from 1) of each value, by its way from the top.
        overrides: The `--set` option that gave a value, by its way from the top.
    """

    source: str
    value: dict[str, Any]
    lines: dict[Location, int]
    overrides: dict[Location, str] = field(default_factory=dict)

    def where(self, location: Location) -> str:
        """Return "file:line" or the option that a value came from, or the nearest one around it."""
        if location in self.overrides:
            return f"--set {self.overrides[location]!r}"
        while location and location not in self.lines:
            location = location[:-1]
        line = self.lines.get(location)
        return f"{self.source}:{line}" if line else self.source

    def fault(self, location: Location, message: str) -> BadInputError:
        """Return the error that says what is wrong at a place."""
        return BadInputError(f"{self.where(location)}: {message}")

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
        """Set the value at the end of a way of keys.

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


def load_document(path: Path) -> Document:
    """Read a job file.

    Raises:
        BadInputError: It cannot be read, is too large, is no YAML 1.2 or no mapping.
    """
    return parse_document(_read(path), str(path))


def parse_document(text: str, source: str) -> Document:
    """Parse a job file's text; `source` is what messages call it.

    Raises:
        BadInputError: It is no YAML 1.2 or no mapping.
    """
    try:
        root = YAML(typ="rt", pure=True).load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        key = re.search(r'duplicate key "([^"]*)"', error.problem or "")
        raise BadInputError(
            f"{source}:{line}: key {key.group(1) if key else ''!r} stands twice; remove one"
        ) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInputError(f"{source}:{line}: no valid YAML: {error.problem}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInputError(f"{source}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, CommentedMap):
        raise BadInputError(f"{source}: a job file is a mapping that begins with `kind:`")
    lines: dict[Location, int] = {(): 1}
    return Document(source, _Plain(source, lines).of(root, ()), lines)


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
        return parse_document(f"value: {text}\n", "").value["value"]
    except BadInputError as error:
        raise BadInputError(f"{text!r} is no YAML value; quote it") from error


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_SIZE_BYTES:
            raise BadInputError(f"{path}: {size} bytes; a job file has {MAX_SIZE_BYTES} at most")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not a text file in UTF-8") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInputError(f"{path}: cannot be read: {reason}") from error


class _Plain:
    """Turns ruamel's nodes into plain values and notes their lines."""

    def __init__(self, source: str, lines: dict[Location, int]) -> None:
        self._source = source
        self._lines = lines
        self._count = 0

    def of(self, node: Any, location: Location) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES:
            raise BadInputError(f"{self._source}: more than {_MAX_VALUES} values; not a job file")
        if isinstance(node, CommentedMap):
            return {self._key(key, location): self._child(node, key, location) for key in node}
        if isinstance(node, CommentedSeq):
            return [self._child(node, index, location) for index in range(len(node))]
        return self._scalar(node, location)

    def _key(self, key: Any, location: Location) -> str:
        if not isinstance(key, str):
            where = f"{self._source}:{self._lines.get(location, 1)}"
            raise BadInputError(f"{where}: key {key!r} is not a word; quote it or mend it")
        return str(key)

    def _child(self, parent: Mapping[Any, Any] | Sequence[Any], key: Any, at: Location) -> Any:
        location = (*at, key)
        position = parent.lc.data.get(key) if parent.lc.data else None  # type: ignore[union-attr]
        if position is not None:
            self._lines[location] = position[0] + 1
        return self.of(parent[key], location)

    def _scalar(self, node: Any, location: Location) -> Any:
        if isinstance(node, TaggedScalar):
            line = self._lines.get(location, 1)
            raise BadInputError(
                f"{self._source}:{line}: tag {node.tag.value} is not allowed in a job file"
            )
        for kind in (bool, int, float, str):
            if isinstance(node, kind):
                return kind(node)
        return None if node is None else str(node)
