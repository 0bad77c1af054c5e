"""The index that `list` reads: live jobs and the newest ended ones, in one object.

What the index no longer holds lies in pages that are written once, and again only when a job of
theirs is deleted. A page is a copy of what records say: a job that is live again is in the index.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobRecord
from orchestrator.store import keys
from orchestrator.store.json_objects import read_json
from orchestrator.store.numbered import NumberedFolder
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

MIN_ENDED = 1000
PAGE_ENTRIES = 500
_READ_THREADS = 16
_READ_AT_ONCE = 400


def index_entry(
    record: JobRecord, heartbeat: Mapping[str, Any] | None = None, position: int | None = None
) -> dict[str, Any]:
    """Return what the index tells of a job; `position` is its place in the queue."""
    beat = heartbeat or {}
    last = record.attempts[-1] if record.attempts else None
    # An attempt that goes on from what is committed says so only once it has begun.
    progress = max((attempt.progress for attempt in record.attempts), default=0)
    done, committed = beat.get("done") or progress, beat.get("committed") or progress
    if last is not None and last.ended_at is not None:  # its last heartbeat came before its end
        done = committed = last.progress
    return {
        "job_id": record.job_id,
        "kind": record.kind,
        "name": record.name,
        "queue": record.queue,
        "priority": record.priority,
        "state": record.state,
        "reason": record.reason,
        "message": record.message,
        "parent": record.parent or None,
        "step": record.step or None,
        "position": position,
        "attempt": record.attempt,
        "submitted_at": record.submitted_at.isoformat(),
        "changed_at": record.changed_at.isoformat(),
        "heartbeat_at": beat.get("at"),
        "phase": beat.get("phase"),
        "num_unplaced": beat.get("details", {}).get("num_unplaced", 0),
        "done": done,
        "committed": committed,
        "total": beat.get("total"),
        "unit": beat.get("unit"),
        "rate_per_s": beat.get("rate_per_s"),
    }


class JobIndex:
    """The index as its one writer keeps it: the newest ended jobs, and pages of the older ones.

    Args:
        store: Where it lies.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._pages = _pages(store)
        self._page = 1
        self._ended: dict[str, dict[str, Any]] = {}
        self._written = b""

    def load(self, live_ids: Iterable[str], pause: Callable[[], None] = lambda: None) -> None:
        """Take over what an earlier writer left; without that, read the jobs themselves.

        Args:
            live_ids: Jobs that have not ended.
            pause: Called now and then where that takes long.
        """
        self._page = max(1, self._pages.newest())
        found = read_json(self._store, keys.INDEX)
        entries = found[0]["ended"] if found else self._rebuilt(set(live_ids), pause)
        self._ended = {entry["job_id"]: entry for entry in entries}

    def _rebuilt(self, live: set[str], pause: Callable[[], None]) -> list[dict[str, Any]]:
        known = live | read_pages(self._store).keys()
        ids = [job for job in self._store.list_folders(keys.JOBS) if job not in known]
        entries: list[dict[str, Any]] = []
        for first in range(0, len(ids), _READ_AT_ONCE):
            pause()
            read = read_entries(self._store, ids[first : first + _READ_AT_ONCE])
            entries += [entry for entry in read if entry is not None]
        return sorted(entries, key=lambda entry: str(entry["changed_at"]))

    def end(self, entry: dict[str, Any]) -> None:
        """Add a job that has ended."""
        self._ended.pop(entry["job_id"], None)
        self._ended[entry["job_id"]] = entry

    def drop(self, job_id: str) -> None:
        """Drop a job that is live again."""
        self._ended.pop(job_id, None)

    def forget(self, job_id: str) -> None:
        """Take a deleted job out of the index, or out of the page that it lies in."""
        if self._ended.pop(job_id, None) is not None:
            return
        for number, body in self._pages.bodies():
            page = json.loads(body)
            kept = [entry for entry in page["ended"] if entry["job_id"] != job_id]
            if len(kept) < len(page["ended"]):
                changed = json.dumps({**page, "ended": kept}).encode()
                self._store.put(self._pages.key(number), changed)

    def write(self, live: list[dict[str, Any]], at: datetime) -> None:
        """Write the index if it changed; first, what is too old for it to a page of its own."""
        while len(self._ended) >= MIN_ENDED + PAGE_ENTRIES:
            self._turn_page()
        content = {"format_version": 1, "live": live, "ended": list(self._ended.values())}
        body = json.dumps(content).encode()
        if body == self._written:
            return
        self._store.put(keys.INDEX, json.dumps({**content, "at": at.isoformat()}).encode())
        self._written = body

    def _turn_page(self) -> None:
        oldest = list(self._ended.values())[:PAGE_ENTRIES]
        body = json.dumps({"format_version": 1, "ended": oldest}).encode()
        # A writer that died before it wrote the index has put this very page already.
        self._page = self._pages.put(self._page, body)
        for entry in oldest:
            del self._ended[entry["job_id"]]


def read_pages(store: ObjectStore) -> dict[str, dict[str, Any]]:
    """Return the entries of the ended jobs that the index no longer holds, by job.

    A job that was retried or deleted since may be among them.
    """
    entries: dict[str, dict[str, Any]] = {}
    for _, body in _pages(store).bodies():
        entries.update((entry["job_id"], entry) for entry in json.loads(body)["ended"])
    return entries


def _pages(store: ObjectStore) -> NumberedFolder:
    return NumberedFolder(store, keys.ENDED_PAGES, ".json")


def read_entries(store: ObjectStore, job_ids: Iterable[str]) -> list[dict[str, Any] | None]:
    """Return the entries of jobs from their records, in order; None for none, or a deleted one."""
    records = RecordStore(store)

    def read(job_id: str) -> dict[str, Any] | None:
        try:
            record = records.read(job_id).record
        except JobNotFoundError:
            return None
        except BadInputError as error:  # of a kind that only a newer version knows
            logger.warning("job=%s is not listed: %s", job_id, error)
            return None
        if record.deleted_at is not None:
            return None
        beat = read_json(store, keys.JobPaths(job_id).attempt(record.attempt).heartbeat)
        return index_entry(record, beat[0] if beat else None)

    with ThreadPoolExecutor(max_workers=_READ_THREADS) as pool:
        return list(pool.map(read, job_ids))


def live_attempts(store: ObjectStore) -> dict[str, int]:
    """Return the jobs that have not ended and the numbers of their attempts, as the index has them.

    One read for all jobs, for whoever would look at thousands of waiting ones again and again.
    """
    found = read_json(store, keys.INDEX)
    return {entry["job_id"]: entry["attempt"] for entry in (found[0]["live"] if found else [])}
