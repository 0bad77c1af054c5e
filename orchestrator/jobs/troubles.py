"""One job's trouble in the background: it ends with the job's turn, and people are told of it.

Each round over jobs (the loop, tracking, notifications, adoption) contains what goes wrong for one
of them, so that all others are served; what keeps a job waiting lies in the store until its turn
succeeds again.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from orchestrator.errors import LeaseLostError, OrchestratorError, StoreError
from orchestrator.jobs.records import Event, RecordStore
from orchestrator.lifecycle.causes import headline
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore

LOOK_AGAIN_AFTER = timedelta(minutes=1)

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What keeps a job waiting in the background.

    Attributes:
        job_id: The job.
        what: What waits: "tracking", "notification", "request", "start", "attempt", ...
        why: One line for a reader.
        since: When it was met first.
    """

    job_id: str
    what: str
    why: str
    since: datetime


TROUBLE = Codec(Trouble, "trouble")


def concerns_all(store: ObjectStore, error: BaseException) -> bool:
    """Tell whether an error met at one job's turn is everybody's: the lease, or the whole store.

    A store may fail for one object alone; whether it is that is found out by asking for another.
    """
    if isinstance(error, LeaseLostError):
        return True
    if not isinstance(error, StoreError):
        return False
    try:
        store.exists(keys.LEASE)
    except StoreError:
        return True
    return False


class Troubles:
    """What one round meets, kept for whoever asks.

    Args:
        store: Where it is kept.
        what: What waits; see `Trouble`.
        is_shared: Whether an error ends the round for all; `concerns_all` by default.
    """

    def __init__(
        self,
        store: ObjectStore,
        what: str,
        is_shared: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self._store = store
        self._what = what
        self._is_shared = is_shared or (lambda error: concerns_all(store, error))
        self._known: dict[str, str] | None = None
        self._read_at: datetime | None = None
        self._served: set[str] = set()

    @contextmanager
    def round(self, is_kept: Callable[[str], bool] = lambda _: False) -> Iterator[None]:
        """Go once over all jobs that there are; who had no turn has nothing that waits any more.

        A job may have moved on, or whoever served it last died before its trouble was forgotten.
        A round that is broken off forgets nothing.

        Args:
            is_kept: Whether a job's trouble is reported although it had no turn.
        """
        self._served.clear()
        if self._read_at is None or self._store.now() - self._read_at > LOOK_AGAIN_AFTER:
            self._known = None  # one that stood back may have noted something after we had looked
        yield
        for job_id in self._known_troubles().keys() - self._served:
            if not is_kept(job_id):
                self.clear(job_id)

    def serve(self, job_id: str, turn: Callable[[], _T]) -> _T | None:
        """Do one job's turn and return what it does; None if something of that job went wrong.

        Raises:
            Exception: What concerns all jobs.
        """
        self._served.add(job_id)
        try:
            done = turn()
        except Exception as error:
            # The top of a job's turn: whatever it was, the others go on.
            if self._is_shared(error):
                raise
            self._note(job_id, error)
            return None
        self.clear(job_id)
        return done

    def _note(self, job_id: str, error: Exception) -> None:
        why = headline(error)
        before = self._known_troubles().get(job_id)
        if before == why:
            return
        ours = isinstance(error, OrchestratorError)
        logger.error("job=%s %s waits: %s", job_id, self._what, why, exc_info=not ours)
        trouble = Trouble(job_id=job_id, what=self._what, why=why, since=self._store.now())
        try:
            self._store.put(keys.trouble(job_id, self._what), TROUBLE.encode(trouble))
        except StoreError as refused:  # tried again at the next turn
            logger.error("job=%s cannot be noted: %s", job_id, refused)
            return
        self._known_troubles()[job_id] = why
        if before is not None:  # reported already; its words may hold a time or an address
            return
        with suppress(Exception):  # the job's own folder may be what is amiss, whatever that raises
            event = Event(at=trouble.since, message=f"{self._what} waits: {why}")
            if self._is_there(job_id):
                RecordStore(self._store).append_event(job_id, event)

    def _is_there(self, job_id: str) -> bool:
        """Tell whether a job has a history to write in; one that was deleted leaves nothing."""
        try:
            return not RecordStore(self._store).is_deleted(job_id)
        except OrchestratorError:  # its record is what is amiss
            return True

    def clear(self, job_id: str) -> None:
        """Forget a trouble whose job's turn went well, or comes no more."""
        if job_id not in self._known_troubles():
            return
        try:
            self._store.delete(keys.trouble(job_id, self._what))
        except StoreError as refused:  # tried again at the next turn
            logger.error("job=%s: its trouble stays noted: %s", job_id, refused)
            return
        del self._known_troubles()[job_id]

    def _known_troubles(self) -> dict[str, str]:
        if self._known is None:
            found = read_troubles(self._store)
            self._known = {one.job_id: one.why for one in found if one.what == self._what}
            self._read_at = self._store.now()
        return self._known


def read_troubles(store: ObjectStore, job_id: str = "") -> list[Trouble]:
    """Return what waits in the background, of one job or of all."""
    prefix = keys.trouble(job_id, "") if job_id else keys.TROUBLES
    found = (TROUBLE.value(store, info.key) for info in store.list_objects(prefix))
    return [trouble for trouble in found if trouble is not None]


def troubled_jobs(store: ObjectStore) -> set[str]:
    """Return the ids of the jobs for which something waits."""
    listed = store.list_objects(keys.TROUBLES)
    return {info.key.removeprefix(keys.TROUBLES).partition("/")[0] for info in listed}
