"""Turns a validation error into one line: file, line, key, what is wrong, the nearest right key."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ddpm.config import ConfigError
from orchestrator.errors import BadInputError
from orchestrator.specs.document import Document, Location

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def located_error(
    error: ValidationError, document: Document, model: type[BaseModel]
) -> BadInputError:
    """Return the first fault of a job file as one line; further faults are counted."""
    faults = error.errors(include_url=False)
    # A misspelt key often makes another one missing: name the misspelling.
    faults.sort(key=lambda fault: fault["type"] not in _UNKNOWN_KEY)
    fault = faults[0]
    location = _field_location(fault["loc"], model)
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        location = (*location, *cause.field.split("."))
    words = [
        other["ctx"]["expected"]
        for other in faults[1:]
        if other["type"] == "literal_error" and _field_location(other["loc"], model) == location
    ]
    message = _message(fault, location, model, words)
    more = len({_field_location(other["loc"], model) for other in faults}) - 1
    rest = f" (and {more} more)" if more else ""
    return BadInputError(f"{document.where(location)}: {message}{rest}")


def _message(
    fault: Any, location: Location, model: type[BaseModel], words: Sequence[str] = ()
) -> str:
    key = ".".join(str(part) for part in location)
    cause = fault.get("ctx", {}).get("error")
    kind = fault["type"]
    if kind in _UNKNOWN_KEY:
        known = _field_names(_type_at(location[:-1], model))
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key {key}; {hint}"
    if kind in ("missing", "missing_argument"):
        return f"key {key} is missing"
    if isinstance(cause, ConfigError):
        return f"{key} must be {cause.requirement}, not {_shown(cause.value)}"
    if isinstance(cause, ValueError):
        return f"{key}: {cause}" if key else str(cause)
    text = fault["msg"][0].lower() + fault["msg"][1:]
    if kind == "string_pattern_mismatch" and "a-z0-9" in text:
        text = "use a-z, 0-9 and single hyphens between them"
    allowed = " or ".join([text.removeprefix("input "), *words])
    return f"{key}: {allowed}, not {_shown(fault['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _field_location(location: tuple[str | int, ...], model: type[BaseModel]) -> Location:
    """Drop the parts that name a branch of a union and not a key."""
    kept: list[str | int] = []
    for part in location:
        names = _field_names(_type_at(tuple(kept), model))
        if isinstance(part, int) or not names or part in names or (part == location[-1] and names):
            kept.append(part)
    while kept and not isinstance(kept[-1], int) and _is_leaf(tuple(kept[:-1]), model):
        kept.pop()
    return tuple(kept)


def _is_leaf(location: Location, model: type[BaseModel]) -> bool:
    return bool(location) and not _field_names(_type_at(location, model))


def _type_at(location: Location, model: type[BaseModel]) -> Any:
    current: Any = model
    for part in location:
        hints = _hints(current)
        current = hints.get(str(part))
    return current


def _hints(annotation: Any) -> dict[str, Any]:
    owner = _structure(annotation)
    if owner is None:
        return {}
    if issubclass(owner, BaseModel):
        return {name: field.annotation for name, field in owner.model_fields.items()}
    hints = typing.get_type_hints(owner)
    return {field.name: hints[field.name] for field in dataclasses.fields(owner)}


def _field_names(annotation: Any) -> list[str]:
    return list(_hints(annotation))


def _structure(annotation: Any) -> Any:
    """Return the model or dataclass inside an annotation, through unions and Annotated."""
    if isinstance(annotation, type):
        is_structure = issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
        return annotation if is_structure else None
    inner: Iterable[Any] = ()
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        inner = typing.get_args(annotation)
    return next((found for part in inner if (found := _structure(part)) is not None), None)
