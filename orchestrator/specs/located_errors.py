"""Turns a validation error into one line: file, line, key, what is wrong, the nearest right key."""

import difflib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ddpm.config import ConfigError
from orchestrator.errors import BadInputError
from orchestrator.specs.document import Document
from orchestrator.specs.fields import all_locations, fields_of, type_at, with_whole_numbers
from orchestrator.specs.other_names import place_of, remark_on
from orchestrator.specs.yaml_nodes import Location, plain_scalar

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


class FieldsError(ValueError):
    """Fields that are right one by one do not go together.

    Args:
        places: The fields; the message points at the last one that was written.
        message: What is wrong, and what to do.
    """

    def __init__(self, places: Sequence[Location], message: str) -> None:
        super().__init__(places, message)
        self.places = places
        self.message = message

    def __str__(self) -> str:
        return self.message


_Model = TypeVar("_Model", bound=BaseModel)


def validated(document: Document, model: type[_Model]) -> _Model:
    """Return what a document says as a model; 1e6 is a whole number where one is needed.

    Raises:
        BadInputError: One line that names file, line and key, and what to do.
    """
    value = with_whole_numbers(document.value, model)
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise located_error(error, document, model) from error


def located_error(
    error: ValidationError, document: Document, model: type[BaseModel]
) -> BadInputError:
    """Return the first fault of a job file as one line; further faults are counted."""
    # A default that was not made, since another field is at fault, is no fault by itself.
    problems = error.errors(include_url=False)
    faults = [fault for fault in problems if fault["type"] != "default_factory_not_called"]
    # A misspelt key often makes another one missing: name the misspelling.
    faults.sort(key=lambda fault: fault["type"] not in _UNKNOWN_KEY)
    fault = faults[0]
    location = _field_location(fault["loc"], model)
    more = len({_field_location(other["loc"], model) for other in faults}) - 1
    rest = f" (and {more} more)" if more else ""
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, FieldsError):
        written = [place for place in cause.places if document.gives((*location, *place))]
        return document.fault((*location, *(written or cause.places)[-1]), f"{cause}{rest}")
    if isinstance(cause, ConfigError):
        location = (*location, *cause.field.split("."))
    words = [
        other["ctx"]["expected"]
        for other in faults[1:]
        if other["type"] == "literal_error" and _field_location(other["loc"], model) == location
    ]
    message = _message(fault, location, model, words)
    if location in document.overrides and fault["type"] == "string_type":
        key = ".".join(str(part) for part in location)
        message += f""" in the shell: --set '{key}="{_shown(fault["input"])}"'"""
    return document.fault(location, f"{message}{rest}")


def _message(
    fault: Any, location: Location, model: type[BaseModel], words: Sequence[str] = ()
) -> str:
    key = ".".join(str(part) for part in location)
    cause = fault.get("ctx", {}).get("error")
    kind = fault["type"]
    if kind in _UNKNOWN_KEY:
        return f"unknown key {key}; {_hint(location, model)}"
    if kind in ("missing", "missing_argument"):
        return f"key {key} is missing"
    if isinstance(cause, ConfigError):
        return f"{key} must be {cause.requirement}, not {_shown(cause.value)}"
    if isinstance(cause, ValueError):
        return f"{key}: {cause}" if key else str(cause)
    return f"{key or 'the file'} {_requirement(fault, words)}"


def _hint(location: Location, model: type[BaseModel]) -> str:
    """Return what an unknown key is called here, where it belongs, or which key is near."""
    name = str(location[-1])
    places = [".".join(place) for place in all_locations(model)]
    elsewhere = [place for place in places if place.rpartition(".")[2] == name]
    if remark := remark_on(name):
        return remark
    if elsewhere:
        return f"it is {elsewhere[0]} here"
    if place := place_of(name, frozenset(places)):
        return f"that is {place} here"
    known = list(fields_of(type_at(location[:-1], model)))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


_LIMITS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} at most",
    "finite_number": "must be a finite number",
}
_KINDS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "decimal": "must be a number",
    "bool": "must be true or false",
    "list": "must be a list, as [1, 2]",
    "tuple": "must be a list, as [1, 2]",
    "dict": "must have keys of its own",
    "model": "must have keys of its own",
    "dataclass": "must have keys of its own",
}


def _requirement(fault: Any, words: Sequence[str]) -> str:
    """Return what a value must be, in the words of somebody who writes YAML, and what it is."""
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind in _LIMITS:
        return f"{_LIMITS[kind].format(**context)}, not {_shown(value)}"
    if kind == "literal_error":
        return _choice([context["expected"], *words], value)
    if message := _of_text(kind, value, context):
        return message
    if kind == "too_short":
        return "must not be empty"
    if kind == "too_long":
        return f"has {len(value)} entries; {context['max_length']} at most"
    needed = _KINDS.get(kind.split("_")[0])
    if needed is None:
        return f"{fault['msg'][0].lower()}{fault['msg'][1:]}, not {_shown(value)}"
    return _of_kind(" or ".join([needed, *words]), kind, value)


def _of_kind(needed: str, kind: str, value: Any) -> str:
    if value is None:
        return f"{needed}; it is empty: fill it in, or take the line out"
    if isinstance(value, str) and kind.startswith(("int", "float")):
        inner = plain_scalar(value.strip()) if value else None
        if isinstance(inner, int | float) and not isinstance(inner, bool):
            return f"{needed}, not the text '{value}': take the quotes off"
    if isinstance(value, str) and kind.startswith("bool") and value.lower() in _YES_NO:
        return f"{needed}, not '{value}': in YAML 1.2 write {_YES_NO[value.lower()]}"
    return f"{needed}, not {_shown(value)}"


_YES_NO = {"yes": "true", "on": "true", "y": "true", "true": "true",
           "no": "false", "off": "false", "n": "false", "false": "false"}  # fmt: skip


def _of_text(kind: str, value: Any, context: dict[str, object]) -> str | None:
    if kind == "string_type":
        if value is None:
            return "must be a text; it is empty: fill it in, or take the line out"
        if isinstance(value, bool | int | float):
            what = "true or false" if isinstance(value, bool) else "a number"
            return (
                f'must be a text, and {_shown(value)} reads as {what}: quote it: "{_shown(value)}"'
            )
        return f"must be a text, not {_shown(value)}"
    if kind == "string_pattern_mismatch":
        if "a-z0-9" in str(context.get("pattern")):
            return f"must be of a-z, 0-9 and single hyphens between them, not {_shown(value)}"
        return f"is not of the right form: {_shown(value)}"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_too_long":
        return f"has {len(value)} characters; {context['max_length']} at most"
    return None


def _choice(expected: Sequence[str], value: Any) -> str:
    message = f"must be {' or '.join(expected)}, not {_shown(value)}"
    words = " ".join(expected).replace("'", " ").replace(",", " ").split()
    near = difflib.get_close_matches(str(value).lower(), words, n=1, cutoff=0.6)
    return f"{message}; did you mean {near[0]}?" if near and str(value) != near[0] else message


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _field_location(location: tuple[str | int, ...], model: type[BaseModel]) -> Location:
    """Drop the parts that name a branch of a union and not a key."""
    kept: list[str | int] = []
    for part in (part for part in location if not str(part).startswith("<")):
        names = list(fields_of(type_at(tuple(kept), model)))
        if isinstance(part, int) or not names or part in names or (part == location[-1] and names):
            kept.append(part)
    while kept and not isinstance(kept[-1], int) and _is_leaf(tuple(kept[:-1]), model):
        kept.pop()
    return tuple(kept)


def _is_leaf(location: Location, model: type[BaseModel]) -> bool:
    return bool(location) and not fields_of(type_at(location, model))
