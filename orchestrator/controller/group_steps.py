"""Moves groups of jobs: looks at their children, asks `groups` what follows, and does it.

Children are ordinary jobs: created as `submit` creates one, cancelled and retried by the same
requests that a user's verbs put into the inbox. So each step may be taken twice, and an
orchestrator that dies between two of them goes on from what the store holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from orchestrator.errors import ConditionFailedError, JobNotFoundError
from orchestrator.jobs.heartbeat import HEARTBEAT, Heartbeat
from orchestrator.jobs.inbox import DEFAULT_GRACE_S, Request, Verb, post_request
from orchestrator.jobs.index_entry import index_entry
from orchestrator.jobs.progress import GROUP_PROGRESS, ChildEntry, GroupProgress, planned_entry
from orchestrator.jobs.records import CLOCKS_APART, Event, RecordStore, VersionedRecord
from orchestrator.jobs.submissions import create_job
from orchestrator.jobs.troubles import Troubles
from orchestrator.lifecycle.groups import (
    ChildView,
    next_children,
    next_records,
    waits_for,
)
from orchestrator.lifecycle.state import JobRecord, JobState, Reason
from orchestrator.specs.asked import Submitted
from orchestrator.specs.envelope import Origin
from orchestrator.specs.group import Child, GroupJob
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

MAX_STARTS_A_LOOP = 16


@dataclass(frozen=True)
class Seen:
    """A child's record and heartbeat as they were seen last.

    Attributes:
        record: None while it is not created.
        said: What its last attempt said last.
    """

    record: JobRecord | None = None
    said: Heartbeat | None = None


@dataclass
class LiveGroup:
    """A group that has not ended, as the loop remembers it between two rounds."""

    spec: GroupJob
    current: VersionedRecord
    said: GroupProgress | None = None
    seen: dict[str, Seen] = field(default_factory=dict)
    is_stale: bool = False
    may_lack_events: bool = True  # whether somebody may have acted and died before the event

    @property
    def record(self) -> JobRecord:
        """The record as last read or written."""
        return self.current.record


class GroupControl:
    """Moves all groups of a store.

    Args:
        store: The truth.
        records: Writes under the orchestrator's lease.
    """

    def __init__(self, store: ObjectStore, records: RecordStore) -> None:
        self._store = store
        self._records = records
        self._troubles = Troubles(store, "group")
        self._live: dict[str, LiveGroup] = {}

    @property
    def live(self) -> Mapping[str, LiveGroup]:
        """The groups that have not ended, by id, as last read or written."""
        return self._live

    def adopt(self, group: LiveGroup) -> None:
        """Move a group from now on."""
        self._live[group.record.job_id] = group

    def let_go(self, job_id: str) -> None:
        """Move a group no more; nothing if it is none."""
        self._live.pop(job_id, None)

    def follow(self, jobs: Mapping[str, Seen]) -> None:
        """Take what follows for each group; `jobs` are those that have not ended, by id."""
        with self._troubles.round():
            for job_id, group in self._live.items():
                went = self._troubles.serve(job_id, partial(self._went, group, jobs))
                group.is_stale |= not went

    def _went(self, group: LiveGroup, jobs: Mapping[str, Seen]) -> bool:
        try:
            if group.is_stale:
                group.current = self._records.read_told(group.record.job_id)
                group.is_stale, group.may_lack_events = False, True
            self._follow(group, jobs)
        except ConditionFailedError:
            return False
        return True

    def _follow(self, group: LiveGroup, live: Mapping[str, Seen]) -> None:
        views = [self._view(group, child, live) for child in group.spec.children]
        if group.may_lack_events:
            self._tell_what_was_done(group, views)
            group.may_lack_events = False
        moved = next_records(group.record, views, group.spec.unit, self._store.now())
        # Before the record: whoever reads that a group has ended finds its children ended too.
        self._show(group, views)
        for record in moved:
            self._move(group, record)
        if group.record.state is JobState.STOPPING:
            self._cancel(group, views)
        starting = next_children(group.record, views, group.spec.max_concurrent)
        for view in starting[:MAX_STARTS_A_LOOP]:
            self._start(group, view)

    def _tell_what_was_done(self, group: LiveGroup, views: Sequence[ChildView]) -> None:
        """Write the last events that are missing: that of a child, and of the record's words."""
        record = group.record
        own = [(v.step, v.record) for v in views if v.record is not None and not v.is_foreign]
        newest = max((child.submitted_at for _, child in own), default=None)
        for step, child in own:
            if child.submitted_at == newest:
                event = self._created(group, step, child.job_id)
                self._records.tell_once(record.job_id, event, newest - CLOCKS_APART)
        if record.message:
            event = Event(at=self._store.now(), message=record.message, attempt=record.attempt)
            self._records.tell_once(record.job_id, event, record.changed_at)

    def _created(self, group: LiveGroup, step: str, job_id: str) -> Event:
        message = f"{step} is in the queue as {job_id}"
        return Event(at=self._store.now(), message=message, attempt=group.record.attempt)

    def _view(self, group: LiveGroup, child: Child, live: Mapping[str, Seen]) -> ChildView:
        job_id = child.job_id
        seen = group.seen.get(job_id)
        if job_id in live:
            seen = live[job_id]
        elif seen is None or (seen.record is not None and not seen.record.state.has_ended):
            seen = self._read(job_id)
        group.seen[job_id] = seen
        is_ours = seen.record is None or seen.record.parent == group.record.job_id
        return ChildView(
            step=child.step,
            job_id=job_id,
            needs=child.needs,
            record=seen.record,
            is_foreign=not is_ours,
        )

    def _read(self, job_id: str) -> Seen:
        try:
            record = self._records.read(job_id).record
        except JobNotFoundError:
            return Seen()
        heartbeat = JobPaths(job_id).attempt(record.attempt).heartbeat
        return Seen(record, HEARTBEAT.value(self._store, heartbeat))

    def _show(self, group: LiveGroup, views: Sequence[ChildView]) -> None:
        """Write how far the children are, if that changed."""
        progress = progress_of(group, views)
        if progress == group.said:
            return
        job_id = group.record.job_id
        self._store.put(JobPaths(job_id).progress, GROUP_PROGRESS.encode(progress))
        if self._records.is_deleted(job_id):  # whose objects may have been listed before
            self._store.delete(JobPaths(job_id).progress)
        group.said = progress

    def _move(self, group: LiveGroup, record: JobRecord) -> None:
        if record.state is not group.record.state:
            group.current = self._records.move(group.current, record)
            return
        group.current = self._records.write(group.current, record)
        event = Event(at=self._store.now(), message=record.message, attempt=record.attempt)
        self._records.append_event(record.job_id, event)

    def _cancel(self, group: LiveGroup, views: Sequence[ChildView]) -> None:
        for view in views:
            if view.record is None or not view.lives:
                continue
            if view.record.stop_target is not JobState.CANCELLED:
                self._ask(view.record, Verb.CANCEL, group.record.stop_grace_s)

    def _start(self, group: LiveGroup, view: ChildView) -> None:
        if view.record is not None:
            self._ask(view.record, Verb.RETRY)
            return
        child = next(c for c in group.spec.children if c.step == view.step)
        origin = Origin(
            parent=group.record.job_id,
            step=child.step,
            waits_for_smoke=child.waits_for_smoke,
            user=group.record.owner,
        )
        del group.seen[child.job_id]
        if create_job(self._records, child.job_id, Submitted(child.spec, origin=origin)):
            event = self._created(group, child.step, child.job_id)
            self._records.append_event(group.record.job_id, event)

    def _ask(self, record: JobRecord, verb: Verb, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Put a request into the inbox: it is done in the next loop, as if a user had asked."""
        request = Request(
            job_id=record.job_id,
            verb=verb,
            attempt=record.attempt,
            at=self._store.now(),
            grace_s=grace_s,
        )
        post_request(self._store, request)


def progress_of(group: LiveGroup, views: Sequence[ChildView]) -> GroupProgress:
    """Return how far a group and each of its children are."""
    children = [
        _entry(child, group.seen[child.job_id], view, views)
        for child, view in zip(group.spec.children, views, strict=True)
    ]
    return GroupProgress(
        done=sum(view.succeeded for view in views),
        total=len(children),
        unit=group.spec.unit,
        children=tuple(children),
    )


def _entry(child: Child, seen: Seen, view: ChildView, views: Sequence[ChildView]) -> ChildEntry:
    planned = planned_entry(child.step, child.job_id, child.spec.kind, child.settings, child.needs)
    if seen.record is None:
        return replace(planned, message=waits_for(view, views) or "waits for its turn")
    if view.is_foreign:
        message = "its id belongs to another job"
        return replace(planned, state=JobState.FAILED, reason=Reason.BAD_INPUT, message=message)
    entry = index_entry(seen.record, seen.said)
    return replace(
        planned,
        state=entry.state,
        reason=entry.reason,
        message=entry.message,
        attempt=entry.attempt,
        heartbeat_at=entry.heartbeat_at,
        phase=entry.phase,
        done=entry.done,
        total=entry.total,
        unit=entry.unit,
        rate_per_s=entry.rate_per_s,
        scores=entry.scores,
    )
