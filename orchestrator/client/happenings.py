"""What happened to many jobs, in the order of time."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from orchestrator.client.status import list_jobs
from orchestrator.jobs.records import Event, RecordStore
from orchestrator.store.objects import ObjectStore

_READ_THREADS = 16


@dataclass(frozen=True)
class Happening:
    """An event and whose it is.

    Attributes:
        job_id: The job.
        event: What happened to it.
    """

    job_id: str
    event: Event

    def as_json(self) -> dict[str, object]:
        """Return it as one mapping."""
        return {"job_id": self.job_id, **vars(self.event)}


class Happenings:
    """Reads what happened to all jobs; what was read is not read again.

    Args:
        store: Where the jobs are.
        since: Older events are left out; None for none.
    """

    def __init__(self, store: ObjectStore, since: datetime | None = None) -> None:
        self._store = store
        self._since = since
        self._seen: dict[str, int] = {}

    def look(self) -> list[Happening]:
        """Return what came since the last look, by time; at first, all there is."""
        listed = list_jobs(self._store)
        ids = [
            job.job_id
            for job in listed
            # A job that came into its state long ago and ended there has no newer event.
            if not (job.state.has_ended and (self._is_old(job.changed_at)))
        ]
        return self._new_of(ids)

    def _is_old(self, at: datetime) -> bool:
        return self._since is not None and at < self._since

    def _new_of(self, ids: Sequence[str]) -> list[Happening]:
        with ThreadPoolExecutor(max_workers=_READ_THREADS) as pool:
            found = zip(ids, pool.map(self._events, ids), strict=True)
            new = [Happening(job_id, event) for job_id, events in found for event in events]
        for one in new:
            self._seen[one.job_id] = max(self._seen.get(one.job_id, 0), one.event.number)
        kept = [one for one in new if not self._is_old(one.event.at)]
        return sorted(kept, key=lambda one: (one.event.at, one.job_id, one.event.number))

    def _events(self, job_id: str) -> Iterable[Event]:
        return RecordStore(self._store).events(job_id, after=self._seen.get(job_id, 0))
