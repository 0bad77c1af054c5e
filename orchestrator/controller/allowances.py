"""Keeps the account of GPU-hours by month and queue, and says which queues have used theirs up."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.controller.lease import Lease
from orchestrator.errors import StoredFormError
from orchestrator.jobs.limits import USAGE, read_usage
from orchestrator.lifecycle.allowance import Usage, spent_queues
from orchestrator.lifecycle.state import JobRecord
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)


class Allowances:
    """The account of one store; nothing in it is lost with the process.

    Args:
        store: Where it lies.
        lease: Under which it is written.
    """

    def __init__(self, store: ObjectStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._usage: Usage | None = None
        self._reported = ""

    def follow(
        self, records: Sequence[JobRecord], limits: Mapping[str, float], now: datetime
    ) -> Mapping[str, str]:
        """Count what has ended, and return the queues that have no hours left, and why.

        Args:
            records: All that have not ended, and those that ended in this round: a job is let go
                of only after it was counted here.
            limits: Queue to GPU-hours a month.
            now: By the store's clock.
        """
        before = self._usage if self._usage is not None else self._read()
        if before is None:
            return {}
        self._usage = before.with_ended(records, now)
        if self._usage is not before:
            self._lease.guard()
            self._store.put(keys.USAGE, USAGE.encode(self._usage))
        return spent_queues(limits, self._usage.used(records, now), now) if limits else {}

    def _read(self) -> Usage | None:
        """Return the account; None of one that is damaged or a newer version's, which stays."""
        try:
            return read_usage(self._store)
        except StoredFormError as error:
            if self._reported != str(error):
                logger.error("no queue is held to its GPU-hours: %s", error)
            self._reported = str(error)
            return None
