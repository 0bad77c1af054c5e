"""The records that the beginning and the stopping of an attempt lead to."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from orchestrator.counts import counted, does
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.retry import FINAL_MESSAGES, GAVE_WAY
from orchestrator.lifecycle.state import (
    AttemptRecord,
    JobRecord,
    JobState,
    Lending,
    Placement,
    Reason,
    ResolvedResources,
)

PREEMPT_GRACE_S = 60.0
_HOUR_S = 3600.0
_NONE: Mapping[str, str] = {}


def begun(
    record: JobRecord,
    *,
    at: datetime,
    resources: ResolvedResources,
    placement: Placement,
    accelerators: Mapping[str, str] = _NONE,
    remark: str = "",
) -> JobRecord:
    """Return a QUEUED record with its next attempt.

    Args:
        record: The record.
        at: By the store's clock.
        resources: What it asks the cluster for.
        placement: What it is given.
        accelerators: Node id to the type of its GPUs, where that is known.
        remark: What else to say of it, from the comma on.
    """
    number = record.attempt + 1
    message = (
        f"attempt {number} with {counted(placement.num_workers, 'worker')} of "
        f"{counted(placement.cpus_per_worker, 'CPU')} and "
        f"{counted(placement.gpus_per_worker, 'GPU')}{remark}"
    )
    if again := sorted(placement.workers_by_node.keys() & set(record.avoided_nodes)):
        message += f", on {', '.join(again)} again, since it fits in no other way"
    attempt = AttemptRecord(
        number=number,
        started_at=at,
        node_ids=tuple(placement.workers_by_node),
        gpus=placement.num_workers * placement.gpus_per_worker,
        gpus_by_type=_gpus_by_type(placement, accelerators),
    )
    return replace(
        record.moved_to(JobState.STARTING, at=at, message=message),
        attempt=number,
        attempts=(*record.attempts, attempt),
        resources=resources,
        placement=placement,
        lending=Lending.KEEP,
        not_before=None,
    )


def _gpus_by_type(placement: Placement, accelerators: Mapping[str, str]) -> dict[str, float]:
    gpus: dict[str, float] = {}
    for node_id, workers in placement.workers_by_node.items():
        name = accelerators.get(node_id, "")
        gpus[name] = gpus.get(name, 0.0) + workers * placement.gpus_per_worker
    return {name: count for name, count in sorted(gpus.items()) if name and count}


def gpu_hours(record: JobRecord, now: datetime) -> float:
    """Return the GPU-hours that a job was given since it was submitted, or retried by a user.

    Args:
        record: The record.
        now: By the store's clock; an attempt that has not ended counts up to then.
    """
    counted = [a for a in record.attempts if a.number >= record.first_counted_attempt]
    spent = (a.gpus * ((a.ended_at or now) - a.started_at).total_seconds() for a in counted)
    return sum(spent) / _HOUR_S


def preempted(record: JobRecord, *, at: datetime, by: str) -> JobRecord:
    """Return the record of a job that saves its work and makes room for another one."""
    message = f"makes room for {by}"
    return stopping(record, at, Reason.PREEMPTED, message, JobState.QUEUED, PREEMPT_GRACE_S)


def must_move(record: JobRecord, leaving: Collection[str]) -> bool:
    """Tell whether a job must save its work and go elsewhere, since nodes of it leave.

    A training loses its gang with one worker; a fleet goes on as long as enough of it stays.

    Args:
        record: The record.
        leaving: Nodes that are being drained.
    """
    placement, resources = record.placement, record.resources
    is_working = record.state in (JobState.STARTING, JobState.RUNNING)
    if placement is None or resources is None or not is_working:
        return False
    workers = placement.workers_by_node
    if not workers.keys() & set(leaving):
        return False
    staying = sum(count for node, count in workers.items() if node not in leaving)
    return staying < resources.min_workers


def moved_away(
    record: JobRecord, *, at: datetime, leaving: Collection[str], notice_s: float | None
) -> JobRecord:
    """Return the record of a job that saves its work before its nodes are gone.

    Args:
        record: The record.
        at: By the store's clock.
        leaving: Nodes that are being drained.
        notice_s: Seconds that the first of them still has; None where nobody knows.
    """
    placed = record.placement.workers_by_node if record.placement is not None else {}
    names = sorted(node[:12] for node in placed if node in leaving)
    nodes = f"{'node' if len(names) == 1 else 'nodes'} {', '.join(names)}"
    left = "" if notice_s is None else f", {notice_s:.0f} s are left"
    message = f"{nodes} {does(len(names), 'are')} being drained{left}: it saves its work and moves"
    grace_s = PREEMPT_GRACE_S if notice_s is None else min(notice_s, PREEMPT_GRACE_S)
    return stopping(record, at, Reason.PREEMPTED, message, JobState.QUEUED, grace_s)


def stopping(
    record: JobRecord,
    at: datetime,
    reason: Reason,
    message: str,
    target: JobState,
    grace_s: float = 0.0,
) -> JobRecord:
    """Return the record of a job whose attempt is to end.

    Args:
        record: The record.
        at: By the store's clock.
        reason: Why.
        message: One line for a reader.
        target: What it becomes once its processes are gone.
        grace_s: Time to save the work in.
    """
    return record.moved_to(
        JobState.STOPPING,
        at=at,
        reason=reason,
        message=message,
        stop_target=target,
        stop_grace_s=grace_s,
    )


def released(
    record: JobRecord, outcome: Outcome | None, *, at: datetime, in_grace: bool
) -> JobRecord:
    """Return the record of a STOPPING job whose processes are gone.

    It becomes what it was stopped for, with two exceptions. All of its work may be done: then it
    has SUCCEEDED, unless its user wanted it cancelled. And while it saved its work to be queued
    again, something may have broken that another attempt cannot cure.

    Args:
        record: The record, with its attempt's reason if that is known better by now.
        outcome: What the attempt's driver said; None if nothing.
        at: By the store's clock.
        in_grace: Whether it said so before it was pressed to end.
    """
    target, reason = record.stop_target or JobState.FAILED, record.reason
    if outcome is not None and outcome.succeeded and target is not JobState.CANCELLED:
        done = record.moved_to(JobState.SUCCEEDED, at=at, message=outcome.message)
        done = replace(done, not_before=None)
        return done.with_attempt(ended_at=at, reason=None, failed_node_ids=())
    message = record.message
    if outcome is not None and in_grace and reason in GAVE_WAY and outcome.reason in FINAL_MESSAGES:
        target, reason = JobState.FAILED, outcome.reason
        message = f"{outcome.message} ({reason}: {FINAL_MESSAGES[reason]})"
    ended = record.moved_to(target, at=at, reason=reason, message=message)
    return ended.with_attempt(ended_at=at, reason=reason)
