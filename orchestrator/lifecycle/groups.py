"""What follows for a group of jobs, from what its children are. Pure.

A group has no processes, so each of its moves follows from its children's states. `next_children`
says which of them to create or to retry, `next_records` how the group's own record moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.counts import does, few
from orchestrator.lifecycle.state import JobRecord, JobState, Reason

_MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ChildView:
    """A child of a group at one moment.

    Attributes:
        step: Its name within the group.
        job_id: Its id.
        needs: Steps that must have succeeded before it may start.
        record: What happened to it; None while it is not created.
        is_foreign: Its id was taken by a job that is none of the group's.
    """

    step: str
    job_id: str
    needs: tuple[str, ...] = ()
    record: JobRecord | None = None
    is_foreign: bool = False

    @property
    def lives(self) -> bool:
        """Whether it was created and has not ended."""
        return self.record is not None and not self.record.state.has_ended and not self.is_foreign

    @property
    def succeeded(self) -> bool:
        """Whether it is done."""
        state = self.record.state if self.record and not self.is_foreign else None
        return state is JobState.SUCCEEDED

    def is_due(self, retried_at: datetime | None) -> bool:
        """Tell whether it is still to be started, or again since its group is retried."""
        if self.record is None:
            return True
        is_broken = self.record.state in (JobState.FAILED, JobState.CANCELLED)
        if self.is_foreign or not is_broken or retried_at is None:
            return False
        return self.record.changed_at <= retried_at


def next_children(
    group: JobRecord, children: Sequence[ChildView], max_concurrent: int | None
) -> list[ChildView]:
    """Return the children to create (those without a record) or to retry now, in order.

    Args:
        group: The group's record.
        children: All of them, in the order of the file.
        max_concurrent: How many may live at once; None for all.
    """
    if group.state not in (JobState.STARTING, JobState.RUNNING):
        return []
    done = {child.step for child in children if child.succeeded}
    ready = [
        child for child in children if child.is_due(group.retried_at) and done >= set(child.needs)
    ]
    if max_concurrent is None:
        return ready
    return ready[: max(0, max_concurrent - sum(child.lives for child in children))]


def next_records(
    group: JobRecord, children: Sequence[ChildView], unit: str, now: datetime
) -> list[JobRecord]:
    """Return the records that follow the group's, one move each, oldest first; often none.

    Args:
        group: Its record.
        children: All of them, in the order of the file.
        unit: What they are called.
        now: The store's time.
    """
    progress = summary(group, children, unit)
    match group.state:
        case JobState.QUEUED:
            return [_begun(group, progress, now)]
        case JobState.STARTING:
            has_begun = any(c.record and c.record.state is not JobState.QUEUED for c in children)
            if has_begun or not _goes_on(group, children):
                return [group.moved_to(JobState.RUNNING, at=now, message=progress)]
            return []
        case JobState.RUNNING:
            return _while_running(group, children, unit, now)
        case JobState.STOPPING:
            return [] if any(c.lives for c in children) else [_released(group, now)]
        case _:
            return _revived(group, children, progress, now)


def _begun(group: JobRecord, progress: str, now: datetime) -> JobRecord:
    """Return the record of a group in a new round; a round is to it what an attempt is to a job."""
    starting = group.moved_to(JobState.STARTING, at=now, message=progress)
    return replace(starting, attempt=group.attempt + 1)


def _while_running(
    group: JobRecord, children: Sequence[ChildView], unit: str, now: datetime
) -> list[JobRecord]:
    progress = summary(group, children, unit)
    if all(child.succeeded for child in children):
        return [group.moved_to(JobState.SUCCEEDED, at=now, message=progress)]
    if not _goes_on(group, children):
        target, reason, message = _verdict(children, _count(children, unit))
        stopping = group.moved_to(
            JobState.STOPPING,
            at=now,
            reason=reason,
            message=message,
            stop_target=target,
        )
        return [stopping, _released(stopping, now)]
    return [replace(group, message=progress)] if group.message != progress else []


def _released(group: JobRecord, now: datetime) -> JobRecord:
    target = group.stop_target or JobState.FAILED
    return group.moved_to(target, at=now, reason=group.reason, message=group.message)


def _revived(
    group: JobRecord, children: Sequence[ChildView], progress: str, now: datetime
) -> list[JobRecord]:
    """Return the records of an ended group of which a child lives again, by a user's own word."""
    living = [child for child in children if child.lives]
    if not living:
        return []
    reason = living[0].record.reason if living[0].record else None
    message = f"{_named(living)} {does(len(living), 'were')} taken up again"
    again = group.moved_to(JobState.QUEUED, at=now, reason=reason, message=message)
    return [again, _begun(again, progress, now)]


def _goes_on(group: JobRecord, children: Sequence[ChildView]) -> bool:
    """Tell whether anything of a group lives, or can start now or later."""
    return any(c.lives or can_start(c, children, group.retried_at) for c in children)


def can_start(child: ChildView, children: Sequence[ChildView], retried_at: datetime | None) -> bool:
    """Tell whether a child can start, now or later: nothing that it needs is lost for good."""
    if not child.is_due(retried_at):
        return False
    by_step = {other.step: other for other in children}
    needed = [by_step[step] for step in child.needs]
    return all(
        other.succeeded or other.lives or can_start(other, children, retried_at) for other in needed
    )


def _verdict(children: Sequence[ChildView], count: str) -> tuple[JobState, Reason | None, str]:
    """Return what a group of which nothing lives and nothing can start has come to, and why."""
    for child in children:
        if child.is_foreign:
            message = f"{child.step} failed ({count}): the id {child.job_id} is another job's"
            return JobState.FAILED, Reason.BAD_INPUT, message
    for child in children:
        if child.record is not None and child.record.state is JobState.FAILED:
            message = f"{child.step} failed ({count}): {child.record.message}"
            return JobState.FAILED, child.record.reason, message
    cancelled = [child for child in children if _is(child, JobState.CANCELLED)]
    message = f"{_named(cancelled)} {does(len(cancelled), 'were')} cancelled ({count})"
    return JobState.CANCELLED, Reason.CANCELLED_BY_USER, message


def _is(child: ChildView, state: JobState) -> bool:
    return child.record is not None and child.record.state is state


def summary(group: JobRecord, children: Sequence[ChildView], unit: str) -> str:
    """Return how far a group is, as "1 of 3 steps done; sample waits for train"."""
    parts = [_count(children, unit)]
    due = {child.step for child in children if child.is_due(group.retried_at)}
    ended = [child for child in children if child.step not in due]
    if failed := [child for child in ended if child.is_foreign or _is(child, JobState.FAILED)]:
        parts.append(f"{_named(failed)} failed")
    if cancelled := [child for child in ended if _is(child, JobState.CANCELLED)]:
        parts.append(f"{_named(cancelled)} {does(len(cancelled), 'were')} cancelled")
    waiting = [child for child in children if child.step in due and waits_for(child, children)]
    if len(waiting) <= _MAX_NAMED:
        parts += [f"{child.step} {waits_for(child, children)}" for child in waiting]
    else:
        parts.append(f"{len(waiting)} wait for others")
    return "; ".join(parts)


def _count(children: Sequence[ChildView], unit: str) -> str:
    done = sum(child.succeeded for child in children)
    return f"{done} of {len(children)} {unit} done"


def waits_for(child: ChildView, children: Sequence[ChildView]) -> str:
    """Return "waits for train" for a child that needs others, "" for one that needs none."""
    done = {other.step for other in children if other.succeeded}
    missing = [step for step in child.needs if step not in done]
    return f"waits for {', '.join(missing)}" if missing else ""


def _named(children: Sequence[ChildView]) -> str:
    return few([child.step for child in children], _MAX_NAMED)
