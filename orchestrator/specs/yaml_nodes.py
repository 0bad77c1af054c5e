"""YAML 1.2 to plain values, with the line of each one; what is wrong is said in plain words.

Nothing is executed: no tags, no class names, and a bound on what aliases unfold to. The same key
twice is an error.
"""

import re
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scanner import Scanner

from orchestrator.errors import BadInputError

Location = tuple[str | int, ...]

_MAX_VALUES = 20_000
_TAG = "tag:yaml.org,2002:"
_BREAKS = "\r\n\x85\u2028\u2029"
_NOT_TEXT = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What the parser says, and what is meant; the first that fits is taken.
_IN_WORDS = (
    (r"expected <block end>", "its indentation does not fit the lines above it"),
    (r"mapping values are not allowed", "a second `: ` in one line; quote the value"),
    (r"'\\t' that cannot start", "a tab stands where only spaces may; indent with spaces"),
    (r"found character (.*) that cannot start", r"text cannot begin with \1; quote it"),
    (r"found unexpected end of stream", "a quote that is opened here is never closed"),
    (r"expected ',' or '\]'", "a list that is opened with [ here is never closed"),
    (r"expected ',' or '\}'", "a mapping that is opened with { here is never closed"),
    (r"could not find expected ':'", "a key without `: ` behind it"),
    (r"found undefined alias '?([^' ]*)'?", r"nothing above is called &\1"),
    (r"duplicate anchor", "two places have the same &name"),
    (r"expected the node content.*stream end", "a bracket that is opened above is never closed"),
    (r"expected the node content", "a value is missing here"),
    (r"found another document", "a second document begins here; a file holds one job"),
)
_DIRECTIVE = re.compile(r"^%(?!YAML 1\.2\s*$).*", re.MULTILINE)
_WHERE_IT_OPENED = ("end of stream", "expected ','")


class _TabScanner(Scanner):
    """Takes tabs where YAML 1.2 does: between tokens of one line, and before a comment."""

    def scan_to_next_token(self) -> Any:
        """Skip blanks, tabs that indent nothing, comments and line breaks."""
        while True:
            super().scan_to_next_token()
            if self.reader.peek() != "\t" or not self._tab_is_blank():
                return
            is_inside = bool(self._before_on_line().strip(" \t"))
            while self.reader.peek() in " \t":
                self.reader.forward()
            if is_inside:  # no block may begin behind a tab
                self.allow_simple_key = False

    def _before_on_line(self) -> str:
        reader = self.reader
        return str(reader.buffer[reader.pointer - reader.column : reader.pointer])

    def _tab_is_blank(self) -> bool:
        if self._before_on_line().strip(" \t"):
            return True
        length = 0
        while self.reader.peek(length) in " \t":
            length += 1
        return self.reader.peek(length) in f"#\0{_BREAKS}"

    def scan_plain_spaces(self, indent: Any, start_mark: Any) -> Any:
        """Return the blanks within a plain text, tabs among them."""
        length = 0
        while self.reader.peek(length) in " \t":
            length += 1
        blanks = self.reader.prefix(length)
        if "\t" not in blanks:
            return super().scan_plain_spaces(indent, start_mark)
        self.reader.forward(length)
        if self.reader.peek() in _BREAKS:
            return super().scan_plain_spaces(indent, start_mark)
        return [blanks]


def plain_mapping(
    text: str, source: str, expand: Callable[[str], str] | None = None
) -> tuple[dict[str, object], dict[Location, int]]:
    """Return the mapping that a text holds, and the line (from 1) of each of its values.

    Args:
        text: YAML 1.2.
        source: What messages call it.
        expand: Fills in what a text refers to; raises ValueError where it cannot.

    Raises:
        BadInputError: It is no YAML, or no mapping; the message names the line.
    """
    _check_text(text, source)
    yaml = _parser()
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        raise _in_words(error, source) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInputError(f"{source}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, MappingNode):
        raise BadInputError(f"{source}: a job file is a mapping that begins with `kind:`")
    plain = _Plain(source, yaml.constructor, expand)
    return plain.of(root, ()), plain.lines


def _check_text(text: str, source: str) -> None:
    odd = _NOT_TEXT.search(text)
    if odd is not None:
        line, name = text.count("\n", 0, odd.start()) + 1, f"U+{ord(odd[0]):04X}"
        raise BadInputError(f"{source}:{line}: the character {name} is no text; take it out")
    directive = _DIRECTIVE.search(text.split("\n---")[0])
    if directive is not None:
        line = text.count("\n", 0, directive.start()) + 1
        raise BadInputError(f"{source}:{line}: {directive[0]}: only YAML 1.2 is read; take it out")


def plain_scalar(text: str) -> Any:
    """Return what a text without quotes means: a number, true, false, nothing, or itself."""
    yaml = _parser()
    tag = yaml.resolver.resolve(ScalarNode, text, (True, False))
    return _scalar(ScalarNode(str(tag), text), yaml.constructor)


def _parser() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _TabScanner
    return yaml


def _in_words(error: MarkedYAMLError, source: str) -> BadInputError:
    problem = error.problem or ""
    mark = error.problem_mark
    if any(phrase in problem for phrase in _WHERE_IT_OPENED) and error.context_mark is not None:
        mark = error.context_mark
    line = mark.line + 1 if mark else 1
    for pattern, words in _IN_WORDS:
        if found := re.search(pattern, problem):
            return BadInputError(f"{source}:{line}: no valid YAML: {found.expand(words)}")
    return BadInputError(f"{source}:{line}: no valid YAML: {problem}")


def _scalar(node: ScalarNode, constructor: Any) -> Any:
    kind = str(node.tag).removeprefix(_TAG)
    if kind == "null":
        return None
    if kind in ("bool", "int", "float"):
        value: Any = constructor.construct_object(node)
        return value
    return str(node.value)


class _Plain:
    """Turns nodes into plain values and notes their lines."""

    def __init__(self, source: str, constructor: Any, expand: Callable[[str], str] | None) -> None:
        self.lines: dict[Location, int] = {(): 1}
        self._source = source
        self._expand = expand
        self._constructor = constructor
        self._count = 0

    def of(self, node: Node, location: Location) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES:
            raise BadInputError(f"{self._source}: more than {_MAX_VALUES} values; not a job file")
        self._refuse_tags(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, location)
        if isinstance(node, SequenceNode):
            return [self._at(item, (*location, n), item) for n, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)  # noqa: S101 - the third of three
        try:
            value = _scalar(node, self._constructor)
        except (ValueError, OverflowError) as error:
            raise self._fault(node, f"{node.value!r} is no number") from error
        return self._expanded(node, value) if isinstance(value, str) else value

    def _expanded(self, node: Node, text: str) -> Any:
        """Fill in what a text refers to; what stood alone may then be a number."""
        if self._expand is None or "$" not in text:
            return text
        try:
            filled = self._expand(text)
        except ValueError as error:
            raise self._fault(node, str(error)) from error
        is_alone = text.startswith("${") and text.find("}") == len(text) - 1
        return plain_scalar(filled) if is_alone else filled

    def _mapping(self, node: MappingNode, location: Location) -> dict[str, object]:
        merged: dict[str, object] = {}
        own: dict[str, object] = {}
        seen: set[str] = set()
        for key, value in node.value:
            name = self._key(key)
            if name in seen:
                hint = "; write `<<: [*a, *b]`" if name == "<<" else "; remove one"
                raise self._fault(key, f"key {name!r} is given twice{hint}")
            seen.add(name)
            if key.tag == f"{_TAG}merge":
                merged = self._merged(value, location)
            else:
                own[name] = self._at(value, (*location, name), key)
        return {**merged, **own}

    def _merged(self, node: Node, location: Location) -> dict[str, object]:
        """Return what `<<` brings in; of several the first wins, and the mapping's own keys do."""
        sources = node.value if isinstance(node, SequenceNode) else [node]
        values: dict[str, object] = {}
        for source in sources:
            if not isinstance(source, MappingNode):
                raise self._fault(node, "`<<` takes mappings, as `<<: *name`")
            kept = dict(self.lines)
            for key, value in self.of(source, location).items():
                values.setdefault(key, value)
            self.lines = {**self.lines, **kept}
        return values

    def _key(self, key: Node) -> str:
        words = (f"{_TAG}str", f"{_TAG}merge", f"{_TAG}int")  # classes may be called by number
        if isinstance(key, ScalarNode) and str(key.tag) in words:
            return str(key.value)
        shown = key.value if isinstance(key, ScalarNode) else "[...]"
        raise self._fault(key, f"key {shown} is not a word; quote it or change it")

    def _at(self, node: Node, location: Location, beginning: Node) -> Any:
        self.lines[location] = beginning.start_mark.line + 1
        return self.of(node, location)

    def _refuse_tags(self, node: Node) -> None:
        tag = str(node.tag)
        if not tag.startswith(_TAG) or tag.removeprefix(_TAG) in ("binary", "set", "omap"):
            raise self._fault(node, f"tag {tag.replace(_TAG, '!!')} is not allowed in a job file")
        if tag.startswith(f"{_TAG}python"):
            raise self._fault(node, f"tag {tag} is not allowed in a job file")

    def _fault(self, node: Node, message: str) -> BadInputError:
        return BadInputError(f"{self._source}:{node.start_mark.line + 1}: {message}")
