"""The index that `list` reads: live jobs and the newest ended ones, in one object.

What the index no longer holds lies in pages that are written once, and again only when a job of
theirs is deleted. A page is a copy of what records say: a job that is live again is in the index.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.errors import JobNotFoundError, OrchestratorError
from orchestrator.jobs.heartbeat import HEARTBEAT, Heartbeat
from orchestrator.jobs.progress import GroupProgress, read_progress
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.troubles import concerns_all
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import GROUP_KINDS, JobRecord, JobState
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
class IndexEntry:
    """What the index tells of a job.

    Attributes:
        job_id: Its id.
        kind: "train", "sample", ...
        name: Its name.
        queue: Its queue.
        priority: 0..100.
        state: What it is.
        reason: Why it is that; a word, since another version may know more of them.
        message: One line for a reader.
        parent: The group that it belongs to.
        step: Its name within that group.
        owner: Who submitted it.
        position: Its place in the queue.
        outlook: "never" where no node will ever do, "waits for nodes to start"; "" else.
        attempt: Number of the current or last attempt.
        submitted_at: When it was submitted.
        changed_at: When it came into its state.
        heartbeat_at: When its attempt said something last.
        moved_at: When its attempt had got further last.
        phase: What its attempt does.
        num_unplaced: Workers that its attempt has room for and that are not there yet.
        done: Units that are done.
        committed: Units that no crash can lose.
        total: Units in all.
        unit: What is counted.
        rate_per_s: Units a second, lately.
        scores: What the work is worth so far: "loss", "bpd", "bpd_se".
    """

    job_id: str
    kind: str
    name: str
    queue: str = "default"
    priority: int = 50
    state: JobState
    reason: str | None = None
    message: str = ""
    parent: str | None = None
    step: str | None = None
    owner: str = ""
    position: int | None = None
    outlook: str = ""
    attempt: int = 0
    submitted_at: datetime
    changed_at: datetime
    heartbeat_at: datetime | None = None
    moved_at: datetime | None = None
    phase: Phase | None = None
    num_unplaced: int = 0
    done: int | float = 0
    committed: int | float = 0
    total: int | None = None
    unit: str | None = None
    rate_per_s: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


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


def index_entry(
    record: JobRecord,
    said: Heartbeat | GroupProgress | None = None,
    position: int | None = None,
    outlook: str = "",
) -> IndexEntry:
    """Return what the index tells of a job.

    Args:
        record: What happened to it.
        said: What its attempt said last; of a group, how far it is.
        position: Its place in the queue.
        outlook: Whether it can start at all, where that is in question.
    """
    last = record.attempts[-1] if record.attempts else None
    # An attempt that goes on from what is committed says so only once it has begun.
    progress = max((attempt.progress for attempt in record.attempts), default=0)
    beat = said if isinstance(said, Heartbeat) else Heartbeat()
    done, committed = (said.done if said else 0) or progress, beat.committed or progress
    if last is not None and last.ended_at is not None:  # its last heartbeat came before its end
        done = committed = last.progress
    has_beaten = isinstance(said, Heartbeat)
    return IndexEntry(
        job_id=record.job_id,
        kind=record.kind,
        name=record.name,
        queue=record.queue,
        priority=record.priority,
        state=record.state,
        reason=record.reason,
        message=record.message,
        parent=record.parent or None,
        step=record.step or None,
        owner=record.owner,
        position=position,
        outlook=outlook,
        attempt=record.attempt,
        submitted_at=record.submitted_at,
        changed_at=record.changed_at,
        heartbeat_at=beat.at,
        moved_at=beat.moved_at,
        phase=beat.phase if has_beaten else None,
        num_unplaced=beat.num_unplaced,
        done=done,
        committed=committed,
        total=said.total if said else None,
        unit=said.unit if said else None,
        rate_per_s=beat.rate_per_s if has_beaten else None,
        scores=beat.scores,
    )


def read_said(store: ObjectStore, record: JobRecord) -> Heartbeat | GroupProgress | None:
    """Return what a job's attempt said last, or how far a group is; None for nothing yet."""
    if record.kind in GROUP_KINDS:
        return read_progress(store, record)
    return read_heartbeat(store, record)


def read_heartbeat(store: ObjectStore, record: JobRecord) -> Heartbeat | None:
    """Return what a job's current or last attempt said last; None for nothing yet."""
    if not record.attempt:
        return None
    heartbeat = keys.JobPaths(record.job_id).attempt(record.attempt).heartbeat
    return HEARTBEAT.value(store, heartbeat)


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
