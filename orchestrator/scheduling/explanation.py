"""Why a queued job waits: what it asks for, what is free, who is ahead, and whether it ever can."""

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.counts import counted, plural
from orchestrator.errors import JobNotFoundError
from orchestrator.scheduling.forecast import estimated_start
from orchestrator.scheduling.requests import QueuedJob
from orchestrator.scheduling.snapshot import Snapshot, in_line
from orchestrator.scheduling.verdict import Verdict
from orchestrator.scheduling.waiting import Holder, NextTurn, NodeRoom, WaitingJob


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a job waits.

    Attributes:
        job_id: The job.
        asks_for: In words.
        verdict: Whether it can start.
        reason: One sentence.
        position: 1 for the first in line.
        ahead: Jobs that are served before it, the first in line first.
        holders: Jobs that hold what it asks for, the largest first.
        free: Every node, the one with the most room for it first.
        avoids: Nodes that it keeps away from, since they broke its attempts.
        uses_avoided: Nodes that it would keep away from if it fitted in any other way.
        estimated_start_at: Seconds since the epoch; None if nobody can say.
    """

    job_id: str
    asks_for: str
    verdict: Verdict
    reason: str
    position: int
    ahead: tuple[str, ...]
    holders: tuple[Holder, ...]
    free: tuple[NodeRoom, ...]
    avoids: tuple[str, ...]
    uses_avoided: tuple[str, ...]
    estimated_start_at: float | None


def explain(snapshot: Snapshot, job_id: str, now: float) -> Explanation:
    """Return why a job of the queue waits.

    Args:
        snapshot: Nodes, jobs and quotas as they are.
        job_id: A job in the queue.
        now: Seconds since the epoch.

    Raises:
        JobNotFoundError: The job is not in the queue.
    """
    line = in_line(snapshot.queue)
    ahead = tuple(job.job_id for job in line)
    if job_id not in ahead:
        raise JobNotFoundError(job_id)
    position = ahead.index(job_id) + 1
    view = WaitingJob(snapshot, line[position - 1], now)
    verdict, reason = view.verdict()
    starts_at = None
    if verdict is not Verdict.NEVER and view.job.waits_for is None:
        starts_at = estimated_start(snapshot, job_id, now)
    return Explanation(
        job_id=job_id,
        asks_for=asks_for(view.job),
        verdict=verdict,
        reason=reason,
        position=position,
        ahead=ahead[: position - 1],
        holders=view.holders(),
        free=view.free(),
        avoids=tuple(sorted(view.job.avoided_nodes & view.ask.avoided & view.nodes.index.keys())),
        uses_avoided=tuple(sorted(view.lifted())),
        estimated_start_at=starts_at,
    )


def why_they_wait(snapshot: Snapshot, job_ids: Collection[str], now: float) -> dict[str, str]:
    """Return what `explain` gives as verdict and reason of each, by id; all is decided once.

    Args:
        snapshot: Nodes, jobs and quotas as they are.
        job_ids: Who is asked about; who is not in the queue is left out.
        now: Seconds since the epoch.
    """
    plan, asked = NextTurn(snapshot, now), set(job_ids)
    views = (WaitingJob(snapshot, job, now, plan) for job in snapshot.queue if job.job_id in asked)
    return {view.job.job_id: "{}: {}".format(*view.verdict()) for view in views}


def asks_for(job: QueuedJob) -> str:
    """Return what a job asks for, in words."""
    low, high = job.num_workers_min, job.num_workers_max
    workers = f"{low}" if low == high else f"{low} to {high}"
    each = counted(job.cpus_per_worker, "CPU")
    if job.gpus_per_worker:
        each = f"{counted(job.gpus_per_worker, 'GPU')}{_type_text(job)} and {each}"
    if job.memory_gb_per_worker:
        each += f" and {job.memory_gb_per_worker:g} GB"
    where = ", ".join(f"{key}={value}" for key, value in job.labels)
    noun = plural("worker") if high > 1 else "worker"
    return f"{workers} {noun} of {each}{where and f' where {where}'}"


def _type_text(job: QueuedJob) -> str:
    types = " or ".join(job.accelerators)
    return f" ({types})" if types else ""
