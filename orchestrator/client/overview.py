"""What there is at one moment, from the store alone: who acts, which nodes, which jobs."""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.client.status import ListedJob, list_jobs
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.nodes import NODES, NodeEntry
from orchestrator.jobs.queue import read_quotas
from orchestrator.lifecycle.state import JobState
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What there is.

    Attributes:
        at: When, by the store's clock.
        is_acting: Whether an orchestrator moves the jobs now.
        acted_at: When one did last; None where none ever ran.
        nodes: The nodes as it saw them last.
        quotas: GPUs that the jobs of a queue may hold at once, by queue; others have no limit.
        jobs: Those that live, then the ended ones, the newest first.
    """

    at: datetime
    is_acting: bool
    acted_at: datetime | None
    nodes: tuple[NodeEntry, ...]
    quotas: dict[str, float]
    jobs: tuple[ListedJob, ...]

    def count(self, *states: JobState) -> int:
        """Return how many jobs are in one of these states."""
        return sum(job.state in states for job in self.jobs)


def read_overview(store: ObjectStore) -> Overview:
    """Return what there is; Ray and MLflow are not asked."""
    lease = read_lease(store)
    found = NODES.value(store, keys.NODES)
    return Overview(
        at=store.now(),
        is_acting=lease is not None and lease.is_fresh,
        acted_at=lease.renewed_at if lease else None,
        nodes=found.nodes if found else (),
        quotas=read_quotas(store),
        jobs=tuple(list_jobs(store)),
    )
