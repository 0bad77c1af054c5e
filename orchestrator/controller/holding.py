"""The jobs and groups that have not ended, as the loop holds them between two steps."""

from collections.abc import Callable, Iterable

from orchestrator.controller.adoption import Adopter, LiveJob
from orchestrator.controller.attempt_steps import AttemptControl
from orchestrator.controller.curve_steps import CurveControl
from orchestrator.controller.group_steps import GroupControl, LiveGroup
from orchestrator.controller.rounds import Rounds
from orchestrator.controller.unread import UnreadControl, UnreadJob
from orchestrator.errors import ConditionFailedError
from orchestrator.jobs.index import JobIndex
from orchestrator.jobs.index_entry import IndexEntry, index_entry
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.jobs.troubles import Troubles
from orchestrator.store.objects import ObjectStore

Held = LiveJob | LiveGroup | UnreadJob


class Holding:
    """Takes jobs into the loop's hands, acts on them one by one, and lets go of them.

    Args:
        store: The truth.
        records: Writes under the orchestrator's lease.
        control: Ends attempts.
        rounds: Contains each job's trouble.
        renew: Renews that lease: many jobs take long.

    Attributes:
        jobs: Those with processes of their own, by id.
        groups: Moves the groups.
        unread: Ends the jobs whose spec cannot be read.
        curves: Follows the evaluations of trainings.
        index: Where `list` reads what all of them are.
    """

    def __init__(
        self,
        store: ObjectStore,
        records: RecordStore,
        control: AttemptControl,
        rounds: Rounds,
        renew: Callable[[], None],
    ) -> None:
        self._records = records
        self._rounds = rounds
        self._renew = renew
        self._adopter = Adopter(records, Troubles(store, "adoption"))
        self.jobs: dict[str, LiveJob] = {}
        self.groups = GroupControl(store, records)
        self.unread = UnreadControl(store, records, control)
        self.curves = CurveControl(store, records, renew)
        self.index = JobIndex(store)

    def met_unknown(self) -> bool:
        """Return whether since the last call a job was met that asks for what nobody here knows."""
        return self._adopter.met_unknown()

    def known(self, job_id: str) -> Held | None:
        """Return a job as it is held, None if it is not."""
        held = self.jobs, self.groups.live, self.unread.live
        return next((jobs[job_id] for jobs in held if job_id in jobs), None)

    def all(self) -> list[Held]:
        """Return all that is held."""
        return [*self.groups.live.values(), *self.unread.live.values(), *self.jobs.values()]

    def adopt(self, job_ids: Iterable[str]) -> None:
        """Take jobs into the hands, as far as they can be read."""
        self._adopt(job_ids)

    def adopt_unseen(self, at_most: int) -> None:
        """Take up jobs that are in the queue's folder and not held, some at a time."""
        unseen = [job for job in self._records.queued_ids() if self.known(job) is None]
        with self._adopter.round(unseen):
            self._adopt(unseen, at_most)

    def look_again(self, job_id: str) -> None:
        """Try anew to read a job, though it could not be read a moment ago."""
        self._adopter.look_again(job_id)

    def _adopt(self, job_ids: Iterable[str], at_most: int | None = None) -> None:
        for job in self._adopter.adopt(job_ids, self._renew, at_most):
            self.index.drop(job.record.job_id)
            if isinstance(job, LiveGroup):
                self.groups.adopt(job)
            elif isinstance(job, UnreadJob):
                self.unread.adopt(job)
            else:
                self.jobs[job.record.job_id] = job

    def guarded(self, what: str, job: LiveJob, action: Callable[[LiveJob], None]) -> bool:
        """Act on one job so that its trouble does not hold up the others; return whether it went.

        Args:
            what: The round of the loop.
            job: The job.
            action: What is done with it, once its record is known for certain.
        """
        went = self._rounds.serve(what, job.record.job_id, lambda: self._went(job, action))
        job.is_stale |= not went
        return went is True

    def _went(self, job: LiveJob, action: Callable[[LiveJob], None]) -> bool:
        try:
            self.refresh(job)
            action(job)
        except ConditionFailedError:
            return False
        return True

    def refresh(self, job: Held) -> VersionedRecord:
        """Read a record anew of which nobody knows whether its last write was done."""
        if job.is_stale:
            job.current = self._records.read_told(job.record.job_id)
            job.is_stale = False
        return job.current

    def end_ended(self) -> list[Held]:
        """Put what has ended among the ended jobs of the index, and return it."""
        ended = [job for job in self.all() if job.record.state.has_ended]
        for job in ended:
            self.index.end(index_entry(job.record, job.said))
        return ended

    def entries(self, entry: Callable[[Held], IndexEntry]) -> list[IndexEntry]:
        """Return what the index says of each that has not ended."""
        return [entry(job) for job in self.all() if not job.record.state.has_ended]

    def forget(self, job_id: str) -> None:
        """Let go of a job; nothing if it is not held."""
        self.jobs.pop(job_id, None)
        self.groups.let_go(job_id)
        self.unread.let_go(job_id)
        self.curves.let_go(job_id)
