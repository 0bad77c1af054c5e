"""Answers what users ask for: one request after the other, each dropped once it is handled."""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from orchestrator.controller.holding import Holding
from orchestrator.controller.requests import handle_request
from orchestrator.controller.rounds import Rounds
from orchestrator.controller.smoke_gate import cancels_of_smoke
from orchestrator.errors import ConditionFailedError, JobNotFoundError
from orchestrator.jobs.inbox import Request, Verb, post_request, read_requests, request_keys
from orchestrator.jobs.records import RecordStore
from orchestrator.store.objects import ObjectStore

DROP_REQUEST_AFTER = timedelta(minutes=10)

logger = logging.getLogger(__name__)


class Answering:
    """Handles the requests of a store.

    Args:
        store: The truth.
        records: Writes under the orchestrator's lease.
        held: The jobs in the loop's hands.
        rounds: Contains each job's trouble.
        renew: Renews that lease.
    """

    def __init__(
        self,
        store: ObjectStore,
        records: RecordStore,
        held: Holding,
        rounds: Rounds,
        renew: Callable[[], None],
    ) -> None:
        self._store = store
        self._records = records
        self._held = held
        self._rounds = rounds
        self._renew = renew
        self._seen: set[str] = set()
        self._deleted: list[Request] = []

    def answer(self) -> None:
        """Handle what was asked for since the last look."""
        self._seen = set()
        for request in read_requests(self._store):
            self._renew()
            self._seen.add(request.key)
            self._answer(request)

    def is_asked(self) -> bool:
        """Return whether requests have come since the last look."""
        return not self._seen.issuperset(request_keys(self._store))

    def drop_deleted(self) -> None:
        """Drop the requests of deleted jobs, which the index that was just written lacks."""
        for request in self._deleted:
            self._rounds.serve("request", request.job_id, partial(self._store.delete, request.key))
        self._deleted.clear()

    def _answer(self, request: Request) -> None:
        """Handle a request; one that cannot be handled is dropped after a while."""
        if self._rounds.serve("request", request.job_id, lambda: self._handled(request)):
            return
        if job := self._held.known(request.job_id):
            job.is_stale = True
        if self._store.now() - request.at > DROP_REQUEST_AFTER:
            logger.error("job=%s: its request %s is dropped", request.job_id, request.key)
            self._rounds.serve("request", request.job_id, partial(self._store.delete, request.key))

    def _handled(self, request: Request) -> bool:
        if request.verb is Verb.DELETE:
            self._take_deleted(request)
        else:
            self._handle(request)
        return True

    def _handle(self, request: Request) -> None:
        job = self._held.known(request.job_id)
        try:
            current = self._held.refresh(job) if job else self._records.read_told(request.job_id)
        except JobNotFoundError:
            self._store.delete(request.key)
            return
        try:
            if request.key not in current.record.handled_requests:
                current = handle_request(self._records, current, request, self._store.now())
        except ConditionFailedError:
            if job:
                job.is_stale = True
            return
        for smoke in cancels_of_smoke(self._records, request, self._held.jobs):
            post_request(self._store, smoke)
        if job:
            job.current = current
        else:  # also one that could not be read: by its record it may come to its end now
            self._held.look_again(request.job_id)
            if not current.record.state.has_ended:
                self._held.adopt([request.job_id])
        self._store.delete(request.key)

    def _take_deleted(self, request: Request) -> None:
        """Forget a job; whoever asked deletes, and may have made one of the same id since."""
        if not self._records.is_at_work(request.job_id):
            self._held.index.forget(request.job_id)
            self._held.forget(request.job_id)
        self._deleted.append(request)  # dropped once the index is written without it
