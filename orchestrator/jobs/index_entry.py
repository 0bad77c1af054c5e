"""A job as the index has it: what its record, its attempt's last word and its place come to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.jobs.heartbeat import HEARTBEAT, Heartbeat
from orchestrator.jobs.progress import GroupProgress, read_progress
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import GROUP_KINDS, JobRecord, JobState
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """What the index tells of a job.

    Attributes:
        job_id: Its id.
        kind: "train", "sample", ...
        name: Its name.
        queue: Its queue.
        priority: 0..100.
        state: What it is.
        reason: Why it is that; a word, since another version may know more of them.
        message: One line for a reader.
        parent: The group that it belongs to.
        step: Its name within that group.
        owner: Who submitted it.
        position: Its place in the queue.
        outlook: "never" where no node will ever do, "waits for nodes to start"; "" else.
        attempt: Number of the current or last attempt.
        submitted_at: When it was submitted.
        changed_at: When it came into its state.
        heartbeat_at: When its attempt said something last.
        moved_at: When its attempt had got further last.
        phase: What its attempt does.
        num_unplaced: Workers that its attempt has room for and that are not there yet.
        done: Units that are done.
        committed: Units that no crash can lose.
        total: Units in all.
        unit: What is counted.
        rate_per_s: Units a second, lately.
        scores: What the work is worth so far: "loss", "bpd", "bpd_se".
    """

    job_id: str
    kind: str
    name: str
    queue: str = "default"
    priority: int = 50
    state: JobState
    reason: str | None = None
    message: str = ""
    parent: str | None = None
    step: str | None = None
    owner: str = ""
    position: int | None = None
    outlook: str = ""
    attempt: int = 0
    submitted_at: datetime
    changed_at: datetime
    heartbeat_at: datetime | None = None
    moved_at: datetime | None = None
    phase: Phase | None = None
    num_unplaced: int = 0
    done: int | float = 0
    committed: int | float = 0
    total: int | None = None
    unit: str | None = None
    rate_per_s: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def index_entry(
    record: JobRecord,
    said: Heartbeat | GroupProgress | None = None,
    position: int | None = None,
    outlook: str = "",
) -> IndexEntry:
    """Return what the index tells of a job.

    Args:
        record: What happened to it.
        said: What its attempt said last; of a group, how far it is.
        position: Its place in the queue.
        outlook: Whether it can start at all, where that is in question.
    """
    last = record.attempts[-1] if record.attempts else None
    # An attempt that goes on from what is committed says so only once it has begun.
    progress = max((attempt.progress for attempt in record.attempts), default=0)
    beat = said if isinstance(said, Heartbeat) else Heartbeat()
    done, committed = (said.done if said else 0) or progress, beat.committed or progress
    if last is not None and last.ended_at is not None:  # its last heartbeat came before its end
        done = committed = last.progress
    has_beaten = isinstance(said, Heartbeat)
    return IndexEntry(
        job_id=record.job_id,
        kind=record.kind,
        name=record.name,
        queue=record.queue,
        priority=record.priority,
        state=record.state,
        reason=record.reason,
        message=record.message,
        parent=record.parent or None,
        step=record.step or None,
        owner=record.owner,
        position=position,
        outlook=outlook,
        attempt=record.attempt,
        submitted_at=record.submitted_at,
        changed_at=record.changed_at,
        heartbeat_at=beat.at,
        moved_at=beat.moved_at,
        phase=beat.phase if has_beaten else None,
        num_unplaced=beat.num_unplaced,
        done=done,
        committed=committed,
        total=said.total if said else None,
        unit=said.unit if said else None,
        rate_per_s=beat.rate_per_s if has_beaten else None,
        scores=beat.scores,
    )


def read_said(store: ObjectStore, record: JobRecord) -> Heartbeat | GroupProgress | None:
    """Return what a job's attempt said last, or how far a group is; None for nothing yet."""
    if record.kind in GROUP_KINDS:
        return read_progress(store, record)
    return read_heartbeat(store, record)


def read_heartbeat(store: ObjectStore, record: JobRecord) -> Heartbeat | None:
    """Return what a job's current or last attempt said last; None for nothing yet."""
    if not record.attempt:
        return None
    heartbeat = keys.JobPaths(record.job_id).attempt(record.attempt).heartbeat
    return HEARTBEAT.value(store, heartbeat)
