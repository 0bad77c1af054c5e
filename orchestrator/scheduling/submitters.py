"""What one submitter's jobs may hold at once: those beyond it wait. Pure.

Whoever submitted is what the job says, so this is an agreement; but it holds for all who keep it.
"""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.scheduling.requests import QueuedJob
from orchestrator.scheduling.snapshot import Snapshot, in_line

ANYBODY = "*"
"""The limit of each submitter who has none of his own."""


def within_limits(snapshot: Snapshot, limits: Mapping[str, float]) -> Snapshot:
    """Return the snapshot with the jobs beyond their submitter's limit waiting for that.

    A submitter's jobs are let in in the order in which they are served, each with as many workers
    as still are allowed. One that is too large holds up none of his that fits.

    Args:
        snapshot: As it is.
        limits: Submitter, or `ANYBODY`, to the GPUs that his jobs may hold at once.
    """
    if not limits:
        return snapshot
    left = dict[str, float]()
    for running in snapshot.running:
        allowed = limit_of(running.owner, limits)
        if allowed is not None:
            left[running.owner] = left.get(running.owner, allowed) - running.gpus
    changed = {job.job_id: _let_in(job, limits, left) for job in in_line(snapshot.queue)}
    return replace(snapshot, queue=[changed[job.job_id] for job in snapshot.queue])


def limit_of(owner: str, limits: Mapping[str, float]) -> float | None:
    """Return the GPUs that a submitter's jobs may hold at once; None for any number."""
    return limits.get(owner, limits.get(ANYBODY))


def _let_in(job: QueuedJob, limits: Mapping[str, float], left: dict[str, float]) -> QueuedJob:
    """Return a job as it may start, and take what it may hold off what its submitter has left."""
    allowed = limit_of(job.owner, limits)
    if allowed is None or job.gpus_per_worker == 0 or job.waits_for is not None:
        return job
    free = left.setdefault(job.owner, allowed)
    num_workers = min(job.num_workers_max, int((free + 1e-9) / job.gpus_per_worker))
    if num_workers < job.num_workers_min:
        who = job.owner or "nobody"
        needed = job.num_workers_min * job.gpus_per_worker
        why = f"its submitter's limit: jobs of {who} may hold {allowed:g} GPUs, {max(free, 0):g} "
        return replace(job, waits_for=f"{why}are left, and it needs {needed:g}")
    left[job.owner] = free - num_workers * job.gpus_per_worker
    return replace(job, num_workers_max=num_workers)
