"""What there is at one moment, from the store alone: who acts, which nodes, which jobs."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.client.status import ListedJob, list_jobs
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.queue import SNAPSHOT, read_quotas
from orchestrator.lifecycle.state import JobState
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """A node as the orchestrator saw it last.

    Attributes:
        node_id: Its Ray id.
        cpus: CPUs that it has.
        gpus: GPUs that it has.
        used_cpus: CPUs that somebody holds.
        used_gpus: GPUs likewise.
        workers: Workers on it, by job.
    """

    node_id: str
    cpus: float
    gpus: float
    used_cpus: float
    used_gpus: float
    workers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What there is.

    Attributes:
        at: When, by the store's clock.
        is_acting: Whether an orchestrator moves the jobs now.
        acted_at: When one did last; None where none ever ran.
        seen_at: When it looked at the nodes last; None where it never did.
        nodes: The nodes.
        quotas: GPUs that the jobs of a queue may hold at once, by queue; others have no limit.
        jobs: Those that live, then the ended ones, the newest first.
    """

    at: datetime
    is_acting: bool
    acted_at: datetime | None
    seen_at: datetime | None
    nodes: tuple[NodeView, ...]
    quotas: dict[str, float]
    jobs: tuple[ListedJob, ...]

    def count(self, *states: JobState) -> int:
        """Return how many jobs are in one of these states."""
        return sum(job.state in states for job in self.jobs)


def read_overview(store: ObjectStore) -> Overview:
    """Return what there is; Ray and MLflow are not asked."""
    lease = read_lease(store)
    found = SNAPSHOT.read(store, keys.SNAPSHOT)
    return Overview(
        at=store.now(),
        is_acting=lease is not None and lease.is_fresh,
        acted_at=lease.renewed_at if lease else None,
        seen_at=found[1].modified_at.astimezone(UTC) if found else None,
        nodes=_nodes(found[0]) if found else (),
        quotas=read_quotas(store),
        jobs=tuple(list_jobs(store)),
    )


def _nodes(snapshot: Snapshot) -> tuple[NodeView, ...]:
    workers: dict[str, dict[str, int]] = defaultdict(dict)
    for job in snapshot.running:
        for node_id, number in job.placement.items():
            workers[node_id][job.job_id] = number
    return tuple(
        NodeView(
            node_id=node.node_id,
            cpus=node.cpus,
            gpus=node.gpus,
            used_cpus=max(0.0, node.cpus - node.free_cpus),
            used_gpus=max(0.0, node.gpus - node.free_gpus),
            workers=dict(workers[node.node_id]),
        )
        for node in snapshot.nodes
    )
