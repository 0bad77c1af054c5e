"""What the models of job files hold: fields, their types and where they stand."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from orchestrator.specs.yaml_nodes import Location


def structure_of(annotation: Any) -> Any:
    """Return the model or dataclass inside an annotation, through unions and Annotated, or None."""
    if isinstance(annotation, type):
        is_structure = issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
        return annotation if is_structure else None
    return next((s for part in _parts(annotation) if (s := structure_of(part)) is not None), None)


def fields_of(annotation: Any) -> dict[str, object]:
    """Return the annotation of each field of the structure inside an annotation; {} for none."""
    owner = structure_of(annotation)
    if owner is None:
        return {}
    hints = typing.get_type_hints(owner, include_extras=True)
    if issubclass(owner, BaseModel):
        return {name: hints[name] for name in owner.model_fields}
    return {field.name: hints[field.name] for field in dataclasses.fields(owner)}


def type_at(location: Location, model: Any) -> Any:
    """Return the annotation of what stands at a location below a model; None for nothing."""
    current: Any = model
    for part in location:
        is_item = isinstance(part, int)
        current = item_type(current) if is_item else fields_of(current).get(str(part))
    return current


def item_type(annotation: Any) -> Any:
    """Return the annotation of the items of a list or tuple; None for anything else."""
    if typing.get_origin(annotation) in (tuple, list):
        return typing.get_args(annotation)[0]
    return next((i for part in _parts(annotation) if (i := item_type(part)) is not None), None)


def plain_types(annotation: Any) -> set[Any]:
    """Return the plain types that an annotation takes, as {int, float, str, bool, None}."""
    if typing.get_origin(annotation) is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    parts = list(_parts(annotation))
    return set().union(*(plain_types(part) for part in parts)) if parts else {annotation}


def words_of(annotation: Any) -> list[Any]:
    """Return the words that an annotation takes literally."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [word for part in _parts(annotation) for word in words_of(part)]


def all_locations(model: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the location of every field below a model, structures before what they hold."""
    for name, annotation in fields_of(model).items():
        yield (*above, name)
        yield from all_locations(annotation, (*above, name))


def with_whole_numbers(value: Any, annotation: Any) -> Any:
    """Return a value in which 1e6 is a whole number wherever only whole numbers may stand."""
    if isinstance(value, dict):
        known = fields_of(annotation)
        return {key: with_whole_numbers(inner, known.get(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(inner, item_type(annotation)) for inner in value]
    if not isinstance(value, float) or not value.is_integer():
        return value
    taken = plain_types(annotation)
    return int(value) if int in taken and float not in taken else value


def _parts(annotation: Any) -> Iterable[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return typing.get_args(annotation)[:1]
    if origin in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return ()
