"""The index that `list` reads: live jobs and the newest ended ones, in one object.

What the index no longer holds lies in pages that are written once, and again only when a job of
theirs is deleted. A page is a copy of what records say: a job that is live again is in the index.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.errors import JobNotFoundError, OrchestratorError
from orchestrator.jobs.index_entry import IndexEntry, index_entry, read_said
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.troubles import concerns_all
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.numbered import NumberedFolder
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

MIN_ENDED = 1000
PAGE_ENTRIES = 500
_READ_THREADS = 16
_READ_AT_ONCE = 400


@dataclass(frozen=True, kw_only=True)
class Index:
    """The index, or (without live jobs) a page of it.

    Attributes:
        live: Jobs that have not ended.
        ended: Ended ones, the oldest first.
        at: When it was written.
    """

    live: tuple[IndexEntry, ...] = ()
    ended: tuple[IndexEntry, ...] = ()
    at: datetime | None = None


INDEX = Codec(Index, "index")


def read_index(store: ObjectStore) -> Index | None:
    """Return the index, or None where no orchestrator ever wrote one."""
    return INDEX.value(store, keys.INDEX)


class JobIndex:
    """The index as its one writer keeps it: the newest ended jobs, and pages of the older ones.

    Args:
        store: Where it lies.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._pages = _pages(store)
        self._page = 1
        self._ended: dict[str, IndexEntry] = {}
        self._written: Index | None = None

    def load(self, live_ids: Iterable[str], pause: Callable[[], None] = lambda: None) -> None:
        """Take over what an earlier writer left; without that, read the jobs themselves.

        Args:
            live_ids: Jobs that have not ended.
            pause: Called now and then where that takes long.
        """
        self._page = max(1, self._pages.newest())
        found = read_index(self._store)
        entries = found.ended if found else self._rebuilt(set(live_ids), pause)
        self._ended = {entry.job_id: entry for entry in entries}

    def _rebuilt(self, live: set[str], pause: Callable[[], None]) -> list[IndexEntry]:
        known = live | read_pages(self._store).keys()
        ids = [job for job in self._store.list_folders(keys.JOBS) if job not in known]
        entries: list[IndexEntry] = []
        for first in range(0, len(ids), _READ_AT_ONCE):
            pause()
            read = read_entries(self._store, ids[first : first + _READ_AT_ONCE])
            entries += [entry for entry in read if entry is not None]
        return sorted(entries, key=lambda entry: entry.changed_at)

    def end(self, entry: IndexEntry) -> None:
        """Add a job that has ended."""
        self._ended.pop(entry.job_id, None)
        self._ended[entry.job_id] = entry

    def drop(self, job_id: str) -> None:
        """Drop a job that is live again."""
        self._ended.pop(job_id, None)

    def forget(self, job_id: str) -> None:
        """Take a deleted job out of the index, or out of the page that it lies in."""
        if self._ended.pop(job_id, None) is not None:
            return
        for number, body in self._pages.bodies():
            key = self._pages.key(number)
            page = INDEX.decode(body, key)
            kept = tuple(entry for entry in page.ended if entry.job_id != job_id)
            if len(kept) < len(page.ended):
                self._store.put(key, INDEX.encode(replace(page, ended=kept)))

    def write(self, live: Sequence[IndexEntry], at: datetime) -> None:
        """Write the index if it changed; first, what is too old for it to a page of its own."""
        while len(self._ended) >= MIN_ENDED + PAGE_ENTRIES:
            self._turn_page()
        index = Index(live=tuple(live), ended=tuple(self._ended.values()))
        if index == self._written:
            return
        self._store.put(keys.INDEX, INDEX.encode(replace(index, at=at)))
        self._written = index

    def _turn_page(self) -> None:
        oldest = tuple(self._ended.values())[:PAGE_ENTRIES]
        # A writer that died before it wrote the index has put this very page already.
        self._page = self._pages.put(self._page, INDEX.encode(Index(ended=oldest)))
        for entry in oldest:
            del self._ended[entry.job_id]


def read_pages(store: ObjectStore) -> dict[str, IndexEntry]:
    """Return the entries of the ended jobs that the index no longer holds, by job.

    A job that was retried or deleted since may be among them.
    """
    pages = _pages(store)
    return {
        entry.job_id: entry
        for number, body in pages.bodies()
        for entry in INDEX.decode(body, pages.key(number)).ended
    }


def _pages(store: ObjectStore) -> NumberedFolder:
    return NumberedFolder(store, keys.ENDED_PAGES, ".json")


def read_entries(store: ObjectStore, job_ids: Iterable[str]) -> list[IndexEntry | None]:
    """Return the entries of jobs from their records, in order; None for none, or a deleted one."""
    records = RecordStore(store)

    def read(job_id: str) -> IndexEntry | None:
        try:
            record = records.read(job_id).record
            return None if record.deleted_at else index_entry(record, read_said(store, record))
        except JobNotFoundError:
            return None
        except OrchestratorError as error:  # such as a kind that only a newer version knows
            if concerns_all(store, error):
                raise
            logger.warning("job=%s is not listed: %s", job_id, error)
            return None

    with ThreadPoolExecutor(max_workers=_READ_THREADS) as pool:
        return list(pool.map(read, job_ids))


def live_attempts(store: ObjectStore) -> dict[str, int]:
    """Return the jobs that have not ended and the numbers of their attempts, as the index has them.

    One read for all jobs, for whoever would look at thousands of waiting ones again and again.
    """
    index = read_index(store)
    return {entry.job_id: entry.attempt for entry in (index.live if index else ())}
