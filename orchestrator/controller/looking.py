"""What the scheduler sees: the jobs that the orchestrator follows, and the nodes, at one moment."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from orchestrator.controller.admission import (
    loans_of,
    queued_job,
    running_job,
    with_ours_taken,
)
from orchestrator.controller.adoption import LiveJob
from orchestrator.controller.agreed import Agreed
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.scheduling.nodes import NodeCapacity, NodeType
from orchestrator.scheduling.requests import QueuedJob
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.scheduling.submitters import within_limits


def snapshot_of(
    jobs: Collection[LiveJob],
    nodes: Sequence[NodeCapacity],
    types: Sequence[NodeType],
    *,
    agreed: Agreed,
    spent: Mapping[str, str],
    workers_there: Callable[[JobRecord], Mapping[str, int]],
    now: datetime,
) -> Snapshot:
    """Return what is decided from: jobs as they were settled last. Changes nothing.

    Args:
        jobs: All that are followed.
        nodes: The nodes that are there, and those that could be started.
        types: What the autoscaler may start.
        agreed: Quotas and limits.
        spent: Queues that have used their GPU-hours, and what their jobs wait for.
        workers_there: Of a job that starts, node id to the workers that Ray is known to see.
        now: By the store's clock.
    """
    there = [node for node in nodes if not node.is_promised]
    busy = [job for job in jobs if job.record.state.has_processes]
    queued = [job for job in jobs if job.record.state is JobState.QUEUED and job.is_settled]
    seen = Snapshot(
        queue=[_as_queued(job, nodes, spent) for job in queued],
        running=[running_job(job.record, job.spec, job.said, now) for job in busy],
        nodes=with_ours_taken(there, [job.record for job in busy], workers_there),
        quotas=agreed.quotas,
        loans=[loan for job in busy for loan in loans_of(job.record, job.said)],
        node_types=types,
    )
    return within_limits(seen, agreed.limits.submitters)


def _as_queued(job: LiveJob, nodes: Sequence[NodeCapacity], spent: Mapping[str, str]) -> QueuedJob:
    is_smoke = job.origin.is_smoke
    return queued_job(job.record, job.spec, nodes, job.waits_for, is_smoke=is_smoke, spent=spent)
