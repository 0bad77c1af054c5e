"""What users of a store have agreed on, in one object: quotas, limits, prices."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.errors import ConditionFailedError, OrchestratorError, StoredFormError
from orchestrator.store import keys
from orchestrator.store.json_objects import read_json
from orchestrator.store.objects import ObjectStore, StoredObject

_TRIES = 10
_T = TypeVar("_T")
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Section(Generic[_T]):
    """A part of the settings, as it is stored and as it is used.

    Attributes:
        name: Its key.
        read: Takes its JSON values and returns what they mean; {} where nobody set anything.
            Raises StoredFormError where somebody wrote them by hand, and not as they have to be.
        write: Returns the JSON values.
    """

    name: str
    read: Callable[[Mapping[str, object]], _T]
    write: Callable[[_T], Mapping[str, object]]


def numbers_section(name: str) -> Section[Numbers]:
    """Return a section that names a number each, as a queue its quota."""

    def read(values: Mapping[str, object]) -> Numbers:
        numbers: dict[str, float] = {}
        for key, number in values.items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise StoredFormError(f"{keys.CONFIG}: {name}: {key} must be a number")
            numbers[key] = number
        return numbers

    return Section(name, read, lambda numbers: numbers)


def read_section(store: ObjectStore, section: Section[_T]) -> _T:
    """Return a section of the settings.

    Raises:
        StoredFormError: Somebody wrote it by hand, and not as it has to be.
    """
    stored = _read(store)
    return section.read(_values(stored[0] if stored else {}, section.name))


def change_section(store: ObjectStore, section: Section[_T], change: Callable[[_T], _T]) -> _T:
    """Change a section and return it; the other sections stay, also those of newer versions.

    Args:
        store: Where the settings lie.
        section: Which.
        change: From the section as it is to what it becomes; called again if others were faster.

    Raises:
        OrchestratorError: Others were faster each time.
        StoredFormError: Somebody wrote them by hand, and not as they have to be.
    """
    for _ in range(_TRIES):
        stored = _read(store)
        config: Mapping[str, object] = stored[0] if stored else {"format_version": 1}
        changed = change(section.read(_values(config, section.name)))
        body = json.dumps({**config, section.name: {**section.write(changed)}}).encode()
        try:
            if stored is None:
                store.put(keys.CONFIG, body, if_absent=True)
            else:
                store.put(keys.CONFIG, body, if_match=stored[1].etag)
        except ConditionFailedError:
            continue
        return changed
    raise OrchestratorError(f"the {section.name} are being changed by many at once; try again")


def _read(store: ObjectStore) -> tuple[Mapping[str, object], StoredObject] | None:
    try:
        stored = read_json(store, keys.CONFIG)
    except ValueError as error:
        raise StoredFormError(f"{keys.CONFIG} is no JSON ({error}): mend or delete it") from error
    if stored is not None and not isinstance(stored[0], dict):
        raise StoredFormError(f"{keys.CONFIG} must be an object of sections: mend or delete it")
    return stored


def _values(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = config.get(name, {})
    if not isinstance(section, dict):
        raise StoredFormError(f"{keys.CONFIG}: {name} must name its values: mend or delete it")
    return section
