"""What users of a store have agreed on, in one object: quotas, limits, prices."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import ConditionFailedError, OrchestratorError, StoredFormError
from orchestrator.store import keys
from orchestrator.store.json_objects import read_json
from orchestrator.store.objects import ObjectStore, StoredObject

_TRIES = 10


def read_settings(store: ObjectStore, section: str) -> dict[str, Any]:
    """Return a section of the settings; {} where nobody set anything.

    Raises:
        StoredFormError: Somebody wrote it by hand, and not as it has to be.
    """
    found = _read(store)
    return _section(found[0], section) if found else {}


def read_numbers(store: ObjectStore, section: str) -> dict[str, float]:
    """Return a section that names a number each, as a queue its quota.

    Raises:
        StoredFormError: Somebody wrote it by hand, and not as it has to be.
    """
    numbers = read_settings(store, section)
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise StoredFormError(f"{keys.CONFIG}: {section}: {name} must be a number")
    return numbers


def _read(store: ObjectStore) -> tuple[dict[str, Any], StoredObject] | None:
    try:
        found = read_json(store, keys.CONFIG)
    except ValueError as error:
        raise StoredFormError(f"{keys.CONFIG} is no JSON ({error}): mend or delete it") from error
    if found is not None and not isinstance(found[0], dict):
        raise StoredFormError(f"{keys.CONFIG} must be an object of sections: mend or delete it")
    return found


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name, {})
    if not isinstance(section, dict):
        raise StoredFormError(f"{keys.CONFIG}: {name} must name its values: mend or delete it")
    return {**section}


def change_settings(
    store: ObjectStore, section: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Change a section and return it; the other sections stay, also those of newer versions.

    Args:
        store: Where the settings lie.
        section: "quotas", "prices".
        change: From the section as it is to what it becomes; called again if others were faster.

    Raises:
        OrchestratorError: Others were faster each time.
        StoredFormError: Somebody wrote them by hand, and not as they have to be.
    """
    for _ in range(_TRIES):
        found = _read(store)
        config: dict[str, Any] = found[0] if found else {"format_version": 1}
        section_now = dict(change(_section(config, section)))
        body = json.dumps({**config, section: section_now}).encode()
        try:
            if found is None:
                store.put(keys.CONFIG, body, if_absent=True)
            else:
                store.put(keys.CONFIG, body, if_match=found[1].etag)
        except ConditionFailedError:
            continue
        return section_now
    raise OrchestratorError(f"the {section} are being changed by many at once; try again")
