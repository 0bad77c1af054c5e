"""How far a group is, and each of its jobs, as the orchestrator writes it down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class ChildEntry:
    """What `status` shows of one job of a group.

    Attributes:
        step: Its name within the group.
        job_id: Its id.
        kind: "train", "sample", ...
        settings: For a sweep: what this run has of its own.
        state: What it is; None while it is not created.
        reason: Why it is that.
        message: One line for a reader.
        attempt: Number of its current or last attempt.
        heartbeat_at: When its attempt said something last.
        phase: What its attempt does.
        done: Units that are done.
        total: Units in all.
        unit: What is counted.
        rate_per_s: Units a second, lately.
        scores: What the work is worth so far: "loss", "bpd", "bpd_se".
    """

    step: str
    job_id: str
    kind: str
    settings: Mapping[str, object] = field(default_factory=dict)
    state: JobState | None = None
    reason: str | None = None
    message: str = ""
    attempt: int = 0
    heartbeat_at: datetime | None = None
    phase: Phase | None = None
    done: int | float = 0
    total: int | None = None
    unit: str | None = None
    rate_per_s: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GroupProgress:
    """How far a group is.

    Attributes:
        done: Jobs that have succeeded.
        total: Jobs in all.
        unit: What they are called.
        children: Each of them, in the order of the file.
    """

    done: int = 0
    total: int = 0
    unit: str = "steps"
    children: tuple[ChildEntry, ...] = ()


GROUP_PROGRESS = Codec(GroupProgress, "progress of the group")


def planned_entry(
    step: str, job_id: str, kind: str, settings: Mapping[str, object], needs: Sequence[str]
) -> ChildEntry:
    """Return what `status` shows of a child that is not created yet."""
    message = f"waits for {', '.join(needs)}" if needs else "waits for its turn"
    return ChildEntry(step=step, job_id=job_id, kind=kind, settings=settings, message=message)


def read_progress(store: ObjectStore, record: JobRecord) -> GroupProgress | None:
    """Return how far a group is; None before anybody has looked.

    Earlier versions wrote it as the heartbeat of an attempt that a group does not have.
    """
    job = JobPaths(record.job_id)
    found = GROUP_PROGRESS.value(store, job.progress)
    if found is None and record.attempt:
        found = GROUP_PROGRESS.value(store, job.attempt(record.attempt).heartbeat)
    return found
