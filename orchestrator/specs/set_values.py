"""What `--set key=VALUE` takes VALUE for: a value is a value, not a piece of a YAML file.

Numbers, booleans and null are typed as in a job file; what begins with a bracket or a quote is
YAML. Everything else is text, character by character: ` #` begins no comment, `: ` no mapping.
"""

from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from orchestrator.errors import BadInputError

_YAML_BEGINS = ("[", "{", '"', "'")
_NULLS = ("", "~", "null", "Null", "NULL")


def is_written_as_yaml(text: str) -> bool:
    """Tell whether a value must be read as YAML: it is quoted, or a list or mapping in brackets."""
    return text.lstrip().startswith(_YAML_BEGINS)


def check_whole(text: str) -> None:
    """Refuse quoted or bracketed YAML of which a reader would drop or fold a part.

    Raises:
        BadInputError: Something stands behind it, or it has line breaks.
    """
    if "\n" in text or "\r" in text:
        raise BadInputError(f"{text!r} has a line break; write \\n inside of double quotes")
    try:
        node = YAML(typ="rt", pure=True).compose(text.strip())
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInputError(f"{text!r} is no YAML value; quote it") from error
    if node is None or node.end_mark.index != len(text.strip()):
        raise BadInputError(f"{text!r}: something stands behind the value; quote all of it")


def typed_or_text(text: str, read_yaml: Callable[[str], Any]) -> Any:
    """Return a number, a boolean or None where YAML reads one, and else the text itself.

    Args:
        text: As typed.
        read_yaml: Reads a word as YAML does.
    """
    word = text.strip()
    if word in _NULLS:
        return None
    if len(word.split()) > 1 or not word.isascii():
        return text
    try:
        found = read_yaml(word)
    except BadInputError:
        return text
    return found if isinstance(found, bool | int | float) else text
