"""What the orchestrator saw last, and the quotas: what `explain` and `queue` read and write."""

import json
from typing import Any

from orchestrator.errors import ConditionFailedError, OrchestratorError
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.json_objects import read_json
from orchestrator.store.objects import ObjectStore

SNAPSHOT = Codec(Snapshot, "snapshot")
_TRIES = 10
MAX_QUOTA = 1_000_000


def read_snapshot(store: ObjectStore) -> Snapshot:
    """Return what the orchestrator decided from last.

    Raises:
        OrchestratorError: No orchestrator ever ran on this store.
    """
    found = SNAPSHOT.value(store, keys.SNAPSHOT)
    if found is None:
        raise OrchestratorError(
            "no orchestrator has looked at this store yet; run `ddpmctl orchestrator ensure`"
        )
    return found


def read_quotas(store: ObjectStore) -> dict[str, float]:
    """Return the GPUs that each queue with a limit may hold at once."""
    found = read_json(store, keys.CONFIG)
    quotas = found[0].get("quotas", {}) if found else {}
    return {name: gpus for name, gpus in quotas.items() if gpus <= MAX_QUOTA}


def set_quota(store: ObjectStore, name: str, gpus: float | None) -> dict[str, float]:
    """Set or, with None, lift a queue's limit; return all limits."""
    for _ in range(_TRIES):
        found = read_json(store, keys.CONFIG)
        config: dict[str, Any] = found[0] if found else {"format_version": 1}
        quotas = {**config.get("quotas", {})}
        quotas.pop(name, None)
        if gpus is not None:
            quotas[name] = gpus
        body = json.dumps({**config, "quotas": quotas}).encode()
        try:
            if found is None:
                store.put(keys.CONFIG, body, if_absent=True)
            else:
                store.put(keys.CONFIG, body, if_match=found[1].etag)
        except ConditionFailedError:
            continue
        return quotas
    raise OrchestratorError("the quotas are being changed by many at once; try again")
