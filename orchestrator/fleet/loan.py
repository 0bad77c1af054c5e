"""The room that a fleet borrows: what nobody uses, given back as soon as somebody could use it."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.jobs.queue import read_quotas, read_snapshot
from orchestrator.lifecycle.state import GROUP_KINDS, JobState, Placement
from orchestrator.scheduling.borrowing import somebody_could_start
from orchestrator.scheduling.snapshot import Loan
from orchestrator.store import keys
from orchestrator.store.json_objects import read_json
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
        self._lacked: frozenset[str] = frozenset()

    def may_begin(self) -> bool:
        """Tell whether free room may be taken; if in doubt, it may not."""
        try:
            others = self._others()
            is_starting = any(entry["state"] == JobState.STARTING for entry in others)
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

    def _others(self) -> Sequence[Mapping[str, Any]]:
        found = read_json(self._store, keys.INDEX)
        live = found[0]["live"] if found else ()
        # A group uses nothing itself, and waits for its own jobs, which are here too.
        return [
            entry
            for entry in live
            if entry["job_id"] != self._job_id and entry["kind"] not in GROUP_KINDS
        ]

    def _is_late(self, others: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether a job has been given room and does not get to its feet there."""
        starting = [entry for entry in others if entry["state"] == JobState.STARTING]
        since = [datetime.fromisoformat(entry["changed_at"]) for entry in starting]
        return any(self._store.now() - at > LATE_START for at in since)

    def _lacks_lastingly(self, others: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether a job has been without a worker that it has a right to for two looks."""
        before, self._lacked = self._lacked, _lacking(others)
        return bool(before & self._lacked)

    def _is_wanted(self, others: Sequence[Mapping[str, Any]], borrowed: Mapping[str, int]) -> bool:
        if self._gpus and self._queue in read_quotas(self._store):
            return True
        waiting = [entry["job_id"] for entry in others if entry["state"] == JobState.QUEUED]
        if not waiting:
            return False
        snapshot, now = read_snapshot(self._store), self._store.now().timestamp()
        own = [
            Loan(job_id=self._job_id, node_id=node, cpus=n * self._cpus, gpus=n * self._gpus)
            for node, n in borrowed.items()
        ]
        return somebody_could_start(snapshot, waiting, own, self._job_id, now)


def _lacking(entries: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the fleets that ask in vain for room which they were given."""
    at_work = [entry for entry in entries if entry["state"] == JobState.RUNNING]
    return frozenset(
        entry["job_id"]
        for entry in at_work
        if entry.get("phase") == "running" and entry.get("num_unplaced")
    )
