"""The room that a fleet borrows: what nobody uses, given back as soon as somebody could use it."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.jobs.index import IndexEntry, read_index
from orchestrator.jobs.queue import read_quotas, read_snapshot
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import GROUP_KINDS, JobState, Placement
from orchestrator.scheduling.borrowing import somebody_could_start
from orchestrator.scheduling.snapshot import Loan
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

LATE_START = timedelta(seconds=40)


class RoomLoan:
    """Asks the store whether a fleet may use more room than it was given.

    Args:
        store: What the orchestrator has written down.
        queue: The job's queue; one with a quota lends nothing to a fleet with GPUs.
        job_id: The job.
        placement: What it was given.
    """

    def __init__(self, store: ObjectStore, queue: str, job_id: str, placement: Placement) -> None:
        self._store = store
        self._queue = queue
        self._job_id = job_id
        self._gpus = placement.gpus_per_worker
        self._cpus = float(placement.cpus_per_worker)
        self._memory_gb = placement.memory_gb_per_worker
        self._lacked: frozenset[str] = frozenset()

    def may_begin(self) -> bool:
        """Tell whether free room may be taken; if in doubt, it may not."""
        try:
            others = self._others()
            is_starting = any(entry.state is JobState.STARTING for entry in others)
            return not (is_starting or _lacking(others) or self._is_wanted(others, {}))
        except OrchestratorError as error:
            logger.info("no room is borrowed for now: %s", error)
            return False

    def must_end(self, borrowed: Mapping[str, int]) -> bool:
        """Tell whether the workers in borrowed room are to leave.

        Args:
            borrowed: Their number by node id.
        """
        try:
            others = self._others()
            is_urgent = self._is_late(others) or self._lacks_lastingly(others)
            return is_urgent or self._is_wanted(others, borrowed)
        except StoreError as error:
            logger.info("what is borrowed stays so for now: %s", error)
            return False

    def _others(self) -> Sequence[IndexEntry]:
        index = read_index(self._store)
        live = index.live if index else ()
        # A group uses nothing itself, and waits for its own jobs, which are here too.
        return [
            entry
            for entry in live
            if entry.job_id != self._job_id and entry.kind not in GROUP_KINDS
        ]

    def _is_late(self, others: Sequence[IndexEntry]) -> bool:
        """Tell whether a job has been given room and does not get to its feet there."""
        starting = [entry for entry in others if entry.state is JobState.STARTING]
        return any(self._store.now() - entry.changed_at > LATE_START for entry in starting)

    def _lacks_lastingly(self, others: Sequence[IndexEntry]) -> bool:
        """Tell whether a job has been without a worker that it has a right to for two looks."""
        before, self._lacked = self._lacked, _lacking(others)
        return bool(before & self._lacked)

    def _is_wanted(self, others: Sequence[IndexEntry], borrowed: Mapping[str, int]) -> bool:
        if self._gpus and self._queue in read_quotas(self._store):
            return True
        waiting = [entry.job_id for entry in others if entry.state is JobState.QUEUED]
        if not waiting:
            return False
        snapshot, now = read_snapshot(self._store), self._store.now().timestamp()
        own = [
            Loan(
                job_id=self._job_id,
                node_id=node,
                cpus=n * self._cpus,
                gpus=n * self._gpus,
                memory_gb=n * self._memory_gb,
            )
            for node, n in borrowed.items()
        ]
        return somebody_could_start(snapshot, waiting, own, self._job_id, now)


def _lacking(entries: Iterable[IndexEntry]) -> frozenset[str]:
    """Return the fleets that ask in vain for room which they were given."""
    at_work = [entry for entry in entries if entry.state is JobState.RUNNING]
    return frozenset(
        entry.job_id for entry in at_work if entry.phase is Phase.RUNNING and entry.num_unplaced
    )
