"""Reads and moves job records, and appends events."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.errors import (
    BadInputError,
    ConditionFailedError,
    JobNotFoundError,
    ObjectNotFoundError,
)
from orchestrator.jobs.marks import Mark, drop_mark, marked_jobs, put_first_marks
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.specs.envelope import STORED_SPEC, StoredSpec
from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore, StoredObject

logger = logging.getLogger(__name__)

CLOCKS_APART = timedelta(seconds=2)
"""How far two times of one moment may differ: an object's time has whole seconds."""
_SPEC_FIELDS = ("kind", "name", "queue", "priority")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job.

    Attributes:
        at: When, by the store's clock.
        message: One line for a reader.
        state: The state that the job came into, if the event is a move.
        reason: Why.
        attempt: The attempt it belongs to.
        number: Its place in the job's history, from 1; 0 before it is written.
    """

    at: datetime
    message: str
    state: str | None = None
    reason: str | None = None
    attempt: int = 0
    number: int = 0


@dataclass(frozen=True)
class VersionedRecord:
    """A record and the ETag that the next move must match."""

    record: JobRecord
    etag: str


def _from_first_version(value: dict[str, object]) -> dict[str, object]:
    """A job without a model had an empty mapping for one."""
    return {**value, "model": value.get("model") or None}


RECORD = Codec(JobRecord, "record", version=2, upgrade=_from_first_version, indent=1)
EVENT = Codec(Event, "event")


class RecordStore:
    """The jobs' records and events in an object store.

    Args:
        store: Where they lie.
        guard: Called before each write; raises when this process must not write any more.
        fence: Fencing number that moves carry.
    """

    def __init__(
        self, store: ObjectStore, guard: Callable[[], None] = lambda: None, fence: int = 0
    ) -> None:
        self.store = store
        self._guard = guard
        self._fence = fence

    def create(self, job_id: str, asked: StoredSpec) -> bool:
        """Put a new job: its marks, then its spec; false if there is a job of that id."""
        self._guard()
        # The marks first: should this process die now, they lead to nothing and are swept away.
        is_notified = asked.spec.get("notify") is not None
        is_tracked = not asked.origin.is_smoke
        put_first_marks(self.store, job_id, is_tracked=is_tracked, is_notified=is_notified)
        try:
            self.store.put(JobPaths(job_id).spec, STORED_SPEC.encode(asked), if_absent=True)
        except ConditionFailedError:
            return False
        return True

    def stored_spec(self, job_id: str) -> StoredSpec:
        """Return what was asked, as it is stored.

        Raises:
            JobNotFoundError: There is no such job.
            StoredFormError: It is damaged, or of a newer version.
        """
        return self._read_spec(job_id)[0]

    def _read_spec(self, job_id: str) -> tuple[StoredSpec, StoredObject]:
        found = STORED_SPEC.read(self.store, JobPaths(job_id).spec)
        if found is None:
            raise JobNotFoundError(job_id)
        return found

    def read(self, job_id: str) -> VersionedRecord:
        """Return the record; a spec without one reads as QUEUED.

        Raises:
            JobNotFoundError: There is no such job.
            BadInputError: Its record is none, or its spec is one of a later version.
        """
        found = RECORD.read(self.store, JobPaths(job_id).record)
        if found is None:
            return VersionedRecord(self._first_record(job_id), "")
        record, stored = found
        return VersionedRecord(record, stored.etag)

    def _first_record(self, job_id: str) -> JobRecord:
        asked, stored = self._read_spec(job_id)
        missing = [name for name in _SPEC_FIELDS if name not in asked.spec]
        if missing:
            raise BadInputError(
                f"the spec of job {job_id} has no {missing[0]}: a newer version wrote it, use that"
            )
        return JobRecord(
            job_id=job_id,
            kind=str(asked.spec["kind"]),
            name=str(asked.spec["name"]),
            queue=str(asked.spec["queue"]),
            priority=int(str(asked.spec["priority"])),
            state=JobState.QUEUED,
            submitted_at=stored.modified_at,
            changed_at=stored.modified_at,
            parent=asked.origin.parent,
            step=asked.origin.step,
            owner=asked.asked.user if asked.asked else asked.origin.user,
        )

    def write(self, current: VersionedRecord, record: JobRecord) -> VersionedRecord:
        """Put a record in the place of the one that it was decided from.

        Raises:
            ConditionFailedError: Somebody wrote in between: read and decide again.
            LeaseLostError: This orchestrator acts no more.
        """
        self._guard()
        record = replace(record, fence=self._fence)
        key, body = JobPaths(record.job_id).record, RECORD.encode(record)
        try:
            if current.etag:
                etag = self.store.put(key, body, if_match=current.etag)
            else:
                etag = self.store.put(key, body, if_absent=True)
        except ConditionFailedError:
            # A put whose answer was lost is sent again, and then meets itself.
            standing = self._find(key)
            if standing is None or standing.body != body:
                raise
            etag = standing.etag
        return VersionedRecord(record, etag)

    def _find(self, key: str) -> StoredObject | None:
        try:
            return self.store.get(key)
        except ObjectNotFoundError:
            return None

    def move(self, current: VersionedRecord, record: JobRecord) -> VersionedRecord:
        """Write a record that changed its state, and the event that tells of it.

        Raises:
            ConditionFailedError: Somebody wrote in between: read and decide again.
            LeaseLostError: This orchestrator acts no more.
        """
        moved = self.write(current, record)
        self.append_event(record.job_id, event_of_move(record))
        return moved

    def is_at_work(self, job_id: str) -> bool:
        """Tell whether there is such a job and it has not ended."""
        try:
            return not self.read(job_id).record.state.has_ended
        except JobNotFoundError:
            return False

    def is_deleted(self, job_id: str) -> bool:
        """Tell whether a job is gone, or somebody is at deleting it."""
        try:
            return self.read(job_id).record.deleted_at is not None
        except JobNotFoundError:
            return True

    def read_told(self, job_id: str) -> VersionedRecord:
        """Return the record of a job that is about to be moved, with its last move in its history.

        Raises:
            JobNotFoundError: There is no such job.
            BadInputError: Its record is none, or its spec is one of a later version.
        """
        current = self.read(job_id)
        if current.record.deleted_at is None:
            self.tell_last_move(current.record)
        return current

    def tell_last_move(self, record: JobRecord) -> None:
        """Write the event of the move that a record shows, unless it is there.

        Whoever moved the record may have died before the event; nobody moves it again before this
        was called, so that at most this one is missing.
        """
        keys = [info.key for info in self.store.list_objects(JobPaths(record.job_id).events)]
        for key in reversed(keys):
            event = EVENT.decode(self.store.get(key).body, key)
            if event.state is not None:
                if (event.state, event.at) == (record.state, record.changed_at):
                    return
                break
        self.append_event(record.job_id, event_of_move(record))

    def tell_once(self, job_id: str, event: Event, since: datetime) -> None:
        """Write an event, unless one with its words stands among those since then.

        Args:
            job_id: Whose history it is.
            event: Told by somebody who may have died before that was written.
            since: When what it tells of was done, or a little before.
        """
        keys = [info.key for info in self.store.list_objects(JobPaths(job_id).events)]
        for key in reversed(keys):
            standing = EVENT.decode(self.store.get(key).body, key)
            if standing.message == event.message:
                return
            if standing.at < since:
                break
        self.append_event(job_id, event)

    def append_event(self, job_id: str, event: Event) -> Event:
        """Write an event under the next free number and return it with that number."""
        folder = JobPaths(job_id)
        number = sum(1 for _ in self.store.list_objects(folder.events))
        while True:
            # Each time: a number that is taken may be the word of an orchestrator that took over.
            self._guard()
            number += 1
            numbered = replace(event, number=number)
            try:
                self.store.put(folder.event(number), EVENT.encode(numbered), if_absent=True)
            except ConditionFailedError:
                standing = self._find(folder.event(number))
                if standing and EVENT.decode(standing.body) == numbered:
                    return numbered  # put before, and the answer was lost
                continue
            return numbered

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """Return the events with a number above `after`, in order."""
        folder = JobPaths(job_id)
        listed = self.store.list_objects(folder.events)
        keys = [info.key for info in listed if info.key > folder.event(after)]
        return [EVENT.decode(self.store.get(key).body, key) for key in keys]

    def queued_ids(self) -> list[str]:
        """Return the ids of the jobs that have not ended."""
        return [marked.job_id for marked in marked_jobs(self.store, Mark.QUEUE)]

    def drop_mark(self, mark: Mark, job_id: str) -> None:
        """Remove a mark of a job that has ended, unless it was queued again meanwhile."""
        drop_mark(self.store, mark, job_id, lambda: self._lives(job_id))

    def _lives(self, job_id: str) -> bool:
        try:
            return not self.read(job_id).record.state.has_ended
        except JobNotFoundError:
            return False


def event_of_move(record: JobRecord) -> Event:
    """Return the event that tells of the move into a record's state."""
    is_new = record.state is JobState.QUEUED and record.changed_at == record.submitted_at
    if is_new:  # its reason and message tell of later looks at it
        return Event(at=record.submitted_at, message="submitted", state=record.state)
    return Event(
        at=record.changed_at,
        message=record.message,
        state=record.state,
        reason=record.reason,
        attempt=record.attempt,
    )
