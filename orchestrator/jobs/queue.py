"""What the orchestrator saw last, and the quotas: what `explain` and `queue` read and write."""

from orchestrator.errors import OrchestratorError
from orchestrator.jobs.settings import Numbers, change_section, numbers_section, read_section
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore

SNAPSHOT = Codec(Snapshot, "snapshot")
_QUOTAS = numbers_section("quotas")
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
    """Return the GPUs that each queue with a limit may hold at once.

    Raises:
        StoredFormError: As of `read_section`.
    """
    return {name: gpus for name, gpus in read_section(store, _QUOTAS).items() if gpus <= MAX_QUOTA}


def set_quota(store: ObjectStore, name: str, gpus: float | None) -> Numbers:
    """Set or, with None, lift a queue's limit; return all limits."""

    def change(quotas: Numbers) -> Numbers:
        others = {queue: limit for queue, limit in quotas.items() if queue != name}
        return others if gpus is None else {**others, name: gpus}

    return change_section(store, _QUOTAS, change)
