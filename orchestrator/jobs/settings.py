"""What users of a store have agreed on, in one object: quotas, prices."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import ConditionFailedError, OrchestratorError
from orchestrator.store import keys
from orchestrator.store.json_objects import read_json
from orchestrator.store.objects import ObjectStore

_TRIES = 10


def read_settings(store: ObjectStore, section: str) -> dict[str, Any]:
    """Return a section of the settings; {} where nobody set anything."""
    found = read_json(store, keys.CONFIG)
    return {**found[0].get(section, {})} if found else {}


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
    """
    for _ in range(_TRIES):
        found = read_json(store, keys.CONFIG)
        config: dict[str, Any] = found[0] if found else {"format_version": 1}
        section_now = dict(change({**config.get(section, {})}))
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
