"""Every field of the job files with its type, its default and what it means, from the models.

The reference page, the schema for editors and `explain-field` all come from here, so that none of
them can say anything else than the code does.
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from orchestrator.specs.fields import fields_of, item_type, plain_types, structure_of, words_of

_ENTRY = re.compile(r"^    (?P<name>\w+): ", re.MULTILINE)
_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class FieldDoc:
    """What there is to say of a field.

    Attributes:
        key: Its key path, as "training.ema_decay".
        type: What it takes, in words.
        default: What stands there if nothing does; None where something must.
        meaning: What it is.
        is_group: It holds fields of its own.
    """

    key: str
    type: str
    default: str | None
    meaning: str
    is_group: bool = False


def field_docs(model: Any, above: str = "", instance: Any = None) -> Iterator[FieldDoc]:
    """Yield what there is to say of each field below a model, in order, groups before their own.

    Args:
        model: The model.
        above: The key path to it, ending in a dot.
        instance: A default of it, whose values count rather than those of its class.
    """
    for name, annotation in fields_of(model).items():
        has, value = _default(structure_of(model), name, instance)
        key, inner = f"{above}{name}", structure_of(annotation)
        default = None if not has else shown(value)
        yield FieldDoc(key, type_text(annotation), default, meaning(model, name), inner is not None)
        if inner is not None:
            # Where a word may stand for keys, as `auto`, the default may be no instance of them.
            yield from field_docs(inner, f"{key}.", value if isinstance(value, inner) else None)


def _default(owner: Any, name: str, instance: Any) -> tuple[bool, Any]:
    if instance is not None:
        return True, getattr(instance, name)
    if issubclass(owner, BaseModel):
        field = owner.model_fields[name]
        return not field.is_required(), None if field.is_required() else _made(field)
    field = next(f for f in dataclasses.fields(owner) if f.name == name)
    has = field.default is not dataclasses.MISSING
    return has, field.default if has else None


def _made(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def shown(value: Any) -> str:
    """Return a value as a job file has it."""
    if dataclasses.is_dataclass(value) or isinstance(value, BaseModel):
        return ""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def meaning(model: Any, name: str) -> str:
    """Return what the docstrings of a model, or of what it is made from, say of a field."""
    for owner in inspect.getmro(structure_of(model)):
        if words := own_meanings(owner).get(name):
            return re.sub(r"\bNone\b", "none", words)
    inner = structure_of(fields_of(model)[name])
    return inspect.cleandoc(inner.__doc__).splitlines()[0] if inner and inner.__doc__ else ""


def own_meanings(owner: type) -> dict[str, str]:
    """Return what a class's own docstring says of fields; what it is made from says the rest."""
    return _attributes(inspect.cleandoc(owner.__dict__.get("__doc__") or ""))


def _attributes(doc: str) -> dict[str, str]:
    """Return the entries of a Google docstring's section on attributes."""
    _, found, rest = doc.partition("Attributes:\n")
    if not found:
        return {}
    section = re.split(r"^\S", rest, maxsplit=1, flags=re.MULTILINE)[0]
    parts = _ENTRY.split(section)[1:]
    texts = (" ".join(text.split()) for text in parts[1::2])
    return dict(zip(parts[::2], texts, strict=True))


def type_text(annotation: Any) -> str:
    """Return what an annotation takes, in words: "number, at least 0 and below 1, or `auto`"."""
    inner = item_type(annotation)
    if inner is not None:
        one = "text, or " if str in plain_types(annotation) - _of_words(annotation) else ""
        return f"{one}list of {_plural(type_text(inner))}"
    structure, kinds = structure_of(annotation), plain_types(annotation)
    named = [
        _KINDS[kind] for kind in (bool, int, float, str) if kind in kinds - _of_words(annotation)
    ]
    if structure is not None:
        named.append("keys")
    if limits := _limits(annotation):
        named[-1:] = [f"{named[-1]}, {limits}"]
    words = [f"`{word}`" for word in words_of(annotation)]
    return _or([*named, *words]) or "keys"


def _of_words(annotation: Any) -> set[Any]:
    """Return the types that stand in an annotation for its literal words alone."""
    if typing.get_origin(annotation) is typing.Literal:
        return plain_types(annotation)
    parts = typing.get_args(annotation)
    literal = [p for p in parts if typing.get_origin(p) is typing.Literal]
    apart = set().union(*(plain_types(p) for p in parts if p not in literal)) if parts else set()
    return set().union(*(plain_types(p) for p in literal)) - apart if literal else set()


def _limits(annotation: Any) -> str:
    lines = []
    for limit in _metadata(annotation):
        for kind, name, words in _LIMITS:
            value = getattr(limit, name, None) if isinstance(limit, kind) else None
            if value is not None:
                lines.append(words.format(value))
    return " and ".join(lines)


_LIMITS: tuple[tuple[type, str, str], ...] = (
    (Ge, "ge", "at least {:,}"),
    (Gt, "gt", "above {:,}"),
    (Le, "le", "at most {:,}"),
    (Lt, "lt", "below {:,}"),
    (StringConstraints, "max_length", "{:,} characters at most"),
)


def _metadata(annotation: Any) -> Iterable[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        for extra in typing.get_args(annotation)[1:]:
            yield from extra.metadata if isinstance(extra, FieldInfo) else [extra]
        return
    for part in typing.get_args(annotation):
        yield from _metadata(part)


def _plural(text: str) -> str:
    return re.sub(r"^(text|whole number|number)", r"\1s", text)


def _or(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)
