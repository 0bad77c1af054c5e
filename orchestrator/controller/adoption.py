"""Brings jobs into the orchestrator's view: reads them, many at a time, and claims records.

A record is written anew when it is adopted, so that the ETags that an earlier orchestrator holds
match nothing any more.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice

from orchestrator.cluster.code_version import release
from orchestrator.controller.group_steps import LiveGroup
from orchestrator.controller.unread import UnreadJob, is_on_its_way_out
from orchestrator.errors import (
    BadInputError,
    ConditionFailedError,
    JobNotFoundError,
    StoreError,
)
from orchestrator.jobs.heartbeat import Heartbeat
from orchestrator.jobs.index_entry import read_heartbeat
from orchestrator.jobs.marks import Mark, drop_mark, drop_orphan
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.jobs.submissions import read_submitted
from orchestrator.jobs.troubles import Troubles
from orchestrator.lifecycle.state import JobRecord
from orchestrator.specs.asked import Submitted
from orchestrator.specs.envelope import Origin
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job

AT_ONCE = 64
_LOOK_AGAIN_AFTER_S = 60.0
_THREADS = 16

logger = logging.getLogger(__name__)


@dataclass
class LiveJob:
    """A job that has not ended, as the loop remembers it between two rounds."""

    spec: Job
    current: VersionedRecord
    said: Heartbeat | None = None
    origin: Origin = field(default_factory=Origin)
    waits_for: str | None = None
    waits_for_job: str | None = None
    has_passed_smoke: bool = False
    has_images: bool = False
    has_dataset: bool = False
    is_settled: bool = False  # whether what it needs was looked at, in this round
    is_stale: bool = False  # whether nobody knows if the last write of its record was done

    @property
    def record(self) -> JobRecord:
        """The record as last read or written."""
        return self.current.record


class Adopter:
    """Reads jobs and claims their records.

    Args:
        records: Reads, and writes under the orchestrator's lease.
        troubles: Contains what goes wrong for one job.
    """

    def __init__(self, records: RecordStore, troubles: Troubles) -> None:
        self._records = records
        self._troubles = troubles
        self._unreadable: dict[str, float] = {}  # until when it is not looked at again
        self._num_unknown = 0

    def met_unknown(self) -> bool:
        """Tell whether since the last call a job was met that asks for what nobody here knows."""
        met, self._num_unknown = self._num_unknown > 0, 0
        return met

    def look_again(self, job_id: str) -> None:
        """Look at a job in the next round, though it could not be read a moment ago."""
        self._unreadable.pop(job_id, None)

    def round(self, job_ids: Collection[str]) -> AbstractContextManager[None]:
        """Adopt of these what can be; who is not among them has been, or has ended."""
        return self._troubles.round(frozenset(job_ids).__contains__)

    def adopt(
        self,
        job_ids: Iterable[str],
        between: Callable[[], None] = lambda: None,
        at_most: int | None = None,
    ) -> Iterator[LiveJob | LiveGroup | UnreadJob]:
        """Yield the jobs and groups that could be read and claimed.

        Args:
            job_ids: Ids from the queue's folder.
            between: Called before each `AT_ONCE` of them, since many take long.
            at_most: Leave the others for the next call.
        """
        now = time.monotonic()
        readable = (job_id for job_id in job_ids if self._unreadable.get(job_id, now) <= now)
        ids = iter(list(islice(readable, at_most)))
        while some := list(islice(ids, AT_ONCE)):
            between()
            with ThreadPoolExecutor(min(_THREADS, len(some))) as pool:
                yield from [job for job in pool.map(self._adopt, some) if job is not None]

    def _adopt(self, job_id: str) -> LiveJob | LiveGroup | UnreadJob | None:
        """Return the job, if it could be read and claimed; what is amiss with it stays with it."""
        self._unreadable[job_id] = time.monotonic() + _LOOK_AGAIN_AFTER_S
        return self._troubles.serve(job_id, lambda: self._read(job_id))

    def _read(self, job_id: str) -> LiveJob | LiveGroup | UnreadJob | None:
        try:
            adopted = self._adopted(job_id)
        except StoreError:  # of the moment, so it is tried at once; what is damaged stays damaged
            del self._unreadable[job_id]
            raise
        except BadInputError as error:
            self._num_unknown += 1
            raise BadInputError(
                f"{error}; the orchestrator runs {release()}: "
                "if the job is one of a newer version, update the code on the cluster"
            ) from error
        del self._unreadable[job_id]
        return adopted

    def _adopted(self, job_id: str) -> LiveJob | LiveGroup | UnreadJob | None:
        try:
            asked, current = self._asked(job_id), self._records.read(job_id)
        except JobNotFoundError:
            drop_orphan(self._records.store, Mark.QUEUE, job_id)
            return None
        if current.record.deleted_at is not None:  # whoever deletes it may have put its mark last
            drop_mark(self._records.store, Mark.QUEUE, job_id)
            return None
        try:
            current = self._records.write(current, current.record)
        except ConditionFailedError:
            return None  # read again in the next round
        self._records.tell_last_move(current.record)
        # One that ended unseen goes into the index with what its attempt said last.
        said = read_heartbeat(self._records.store, current.record)
        if asked is None:
            return UnreadJob(current, said)
        if isinstance(asked.spec, GroupJob):
            return LiveGroup(asked.spec, current)
        return LiveJob(asked.spec, current, said, asked.origin)

    def _asked(self, job_id: str) -> Submitted | None:
        """Return what was asked; None if that cannot be read and decides nothing any more."""
        try:
            return read_submitted(self._records, job_id)
        except BadInputError:
            if not is_on_its_way_out(self._records.read(job_id).record):
                raise
            return None
