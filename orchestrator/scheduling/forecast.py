"""When a queued job is likely to start: the scheduler played forward on expected ends.

Every job is taken to end when its measured pace says, else when its max_runtime_s is over. Jobs
behind the one asked about are left out, since they may not delay it.
"""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.requests import QueuedJob, RunningJob
from orchestrator.scheduling.snapshot import Preempt, Snapshot, Start, in_line

MAX_EVENTS = 100


def estimated_start(snapshot: Snapshot, job_id: str, now: float) -> float | None:
    """Return when a job is likely to start, in seconds since the epoch.

    Args:
        snapshot: Nodes, jobs and quotas as they are.
        job_id: A job in the queue.
        now: Seconds since the epoch.

    Returns:
        `now` if it starts at once or as soon as what is stopping has stopped; None if something
        before it has no known end, or too much lies before it.
    """
    snapshot = replace(snapshot, queue=_up_to(snapshot.queue, job_id))
    for _ in range(MAX_EVENTS):
        actions = decide(snapshot, now)
        if any(isinstance(action, Start) and action.job_id == job_id for action in actions):
            return now
        victims = {action.job_id for action in actions if isinstance(action, Preempt)}
        snapshot = snapshot.after(actions, now)
        stopping = {job.job_id for job in snapshot.running if job.stopping}
        if stopping:
            snapshot = snapshot.without(stopping, requeued=victims)
            continue
        changes_at = _next_change(snapshot, now)
        if changes_at is None:
            return None
        now = changes_at
        snapshot = snapshot.without(
            {job.job_id for job in snapshot.running if (_end_of(job) or now + 1.0) <= now}
        )
    return None


def _up_to(queue: Sequence[QueuedJob], job_id: str) -> list[QueuedJob]:
    line = in_line(queue)
    (last,) = (number for number, job in enumerate(line) if job.job_id == job_id)
    return line[: last + 1]


def _end_of(job: RunningJob) -> float | None:
    return job.latest_end_at if job.expected_end_at is None else job.expected_end_at


def _next_change(snapshot: Snapshot, now: float) -> float | None:
    """Return when the next job ends or is over its back-off; ends that are overdue are now."""
    ends = (_end_of(job) for job in snapshot.running)
    times = [max(end, now) for end in ends if end is not None]
    times += [job.not_before for job in snapshot.queue if job.not_before > now]
    return min(times, default=None)
