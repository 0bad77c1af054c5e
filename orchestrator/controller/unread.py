"""Takes jobs to their end whose spec cannot be read: those that are being stopped or have ended.

What a job is asked to do decides nothing any more once its record says STOPPING: the processes of
its attempt are registered beside it. A group is left out: only its spec names its children.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.controller.attempt_steps import AttemptControl
from orchestrator.errors import ConditionFailedError
from orchestrator.jobs.heartbeat import Heartbeat
from orchestrator.jobs.index_entry import read_heartbeat
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.jobs.troubles import Troubles
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.store.objects import ObjectStore


@dataclass
class UnreadJob:
    """A job on its way out, as the loop remembers it between two rounds."""

    current: VersionedRecord
    said: Heartbeat | None = None
    is_stale: bool = False

    @property
    def record(self) -> JobRecord:
        """The record as last read or written."""
        return self.current.record


def is_on_its_way_out(record: JobRecord) -> bool:
    """Return whether a job can be taken to its end by its record alone."""
    is_over = record.state is JobState.STOPPING or record.state.has_ended
    return is_over and record.kind in JOB_KINDS


class UnreadControl:
    """Ends all such jobs of a store.

    Args:
        store: The truth.
        records: Writes under the orchestrator's lease.
        control: Ends attempts.
    """

    def __init__(self, store: ObjectStore, records: RecordStore, control: AttemptControl) -> None:
        self._store = store
        self._records = records
        self._control = control
        self._troubles = Troubles(store, "unread")
        self._live: dict[str, UnreadJob] = {}

    @property
    def live(self) -> Mapping[str, UnreadJob]:
        """The jobs that it holds, by id, as last read or written."""
        return self._live

    def adopt(self, job: UnreadJob) -> None:
        """Take a job to its end from now on."""
        self._live[job.record.job_id] = job

    def let_go(self, job_id: str) -> None:
        """Hold a job no more; nothing if it is none."""
        self._live.pop(job_id, None)

    def follow(self) -> None:
        """Take what follows for each job; one that is queued again is nobody's here any more."""
        with self._troubles.round():
            for job_id, job in list(self._live.items()):
                job.is_stale |= not self._troubles.serve(job_id, partial(self._went, job))
                if not is_on_its_way_out(job.record):
                    self.let_go(job_id)

    def _went(self, job: UnreadJob) -> bool:
        try:
            if job.is_stale:
                job.current = self._records.read_told(job.record.job_id)
                job.is_stale = False
            if job.record.state is JobState.STOPPING:
                job.said = read_heartbeat(self._store, job.record)
                job.current = self._control.end(job.current, job.said)
        except ConditionFailedError:
            return False
        return True
