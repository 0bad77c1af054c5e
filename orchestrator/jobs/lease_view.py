"""What anybody sees of the orchestrator's lease: who holds it, and whether that one acts now."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator.store import keys
from orchestrator.store.json_objects import read_json
from orchestrator.store.objects import ObjectStore

TERM_S = 20.0


@dataclass(frozen=True)
class LeaseView:
    """What a reader sees of the lease.

    Attributes:
        holder: Who holds it: owner, host, pid, version, fence.
        renewed_at: When it was renewed last, by the store's clock.
        age: How long ago that was.
    """

    holder: dict[str, Any]
    renewed_at: datetime
    age: timedelta

    @property
    def is_fresh(self) -> bool:
        """Whether an orchestrator acts now."""
        return self.age <= timedelta(seconds=TERM_S) and not self.holder.get("released")


def read_lease(store: ObjectStore) -> LeaseView | None:
    """Return the lease, or None where no orchestrator ever ran."""
    found = read_json(store, keys.LEASE)
    if found is None:
        return None
    holder, stored = found
    return LeaseView(holder, stored.modified_at, stored.age)
