"""The index that `list` reads: live jobs and the newest ended ones, in one object."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from orchestrator import paths
from orchestrator.errors import JobNotFoundError
from orchestrator.records import RecordStore, read_json
from orchestrator.state import JobRecord
from orchestrator.storage import ObjectStore

MAX_ENDED = 1000


def index_entry(
    record: JobRecord, heartbeat: Mapping[str, Any] | None = None, position: int | None = None
) -> dict[str, Any]:
    """Return what the index tells of a job; `position` is its place in the queue."""
    beat = heartbeat or {}
    last = record.attempts[-1] if record.attempts else None
    done = beat.get("done", last.progress if last else 0)
    return {
        "job_id": record.job_id,
        "kind": record.kind,
        "name": record.name,
        "queue": record.queue,
        "priority": record.priority,
        "state": record.state,
        "reason": record.reason,
        "message": record.message,
        "position": position,
        "attempt": record.attempt,
        "submitted_at": record.submitted_at.isoformat(),
        "changed_at": record.changed_at.isoformat(),
        "heartbeat_at": beat.get("at"),
        "phase": beat.get("phase"),
        "done": done,
        "total": beat.get("total"),
        "unit": beat.get("unit"),
        "rate_per_s": beat.get("rate_per_s"),
    }


class JobIndex:
    """The index as its one writer keeps it.

    Args:
        store: Where it lies.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._ended: dict[str, dict[str, Any]] = {}
        self._written = b""

    def load(self, live_ids: Iterable[str]) -> None:
        """Take over what an earlier writer left; without that, read the jobs themselves."""
        live = set(live_ids)
        found = read_json(self._store, paths.INDEX)
        entries = found[0]["ended"] if found else self._rebuilt(live)
        self._ended = {entry["job_id"]: entry for entry in entries}

    def _rebuilt(self, live: set[str]) -> list[dict[str, Any]]:
        ids = [job for job in self._store.list_folders(paths.JOBS) if job not in live]
        entries = [entry for entry in read_entries(self._store, ids) if entry is not None]
        entries.sort(key=lambda entry: entry["changed_at"])
        return entries[-MAX_ENDED:]

    def end(self, entry: dict[str, Any]) -> None:
        """Add a job that has ended."""
        self._ended.pop(entry["job_id"], None)
        self._ended[entry["job_id"]] = entry
        while len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def revive(self, job_id: str) -> None:
        """Drop a job that is live again."""
        self._ended.pop(job_id, None)

    def write(self, live: list[dict[str, Any]], at: datetime) -> None:
        """Write the index if it changed."""
        content = {"format_version": 1, "live": live, "ended": list(self._ended.values())}
        body = json.dumps(content).encode()
        if body == self._written:
            return
        self._store.put(paths.INDEX, json.dumps({**content, "at": at.isoformat()}).encode())
        self._written = body


def read_entries(store: ObjectStore, job_ids: Iterable[str]) -> list[dict[str, Any] | None]:
    """Return the entries of jobs from their own records, in order; None for no such job."""
    records = RecordStore(store)

    def read(job_id: str) -> dict[str, Any] | None:
        try:
            record = records.read(job_id).record
        except JobNotFoundError:
            return None
        beat = read_json(store, paths.JobPaths(job_id).attempt(record.attempt).heartbeat)
        return index_entry(record, beat[0] if beat else None)

    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(read, job_ids))
