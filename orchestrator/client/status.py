"""What the command line reads of the jobs, and asks of the orchestrator: status, list, requests.

Nothing here reads a job file, so these verbs need not build what a job file may say.
"""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.jobs.index import index_entry, read_entries, read_pages
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore, Request
from orchestrator.lifecycle.groups import planned_entry
from orchestrator.lifecycle.state import GROUP_KINDS, JobState
from orchestrator.store import keys
from orchestrator.store.json_objects import read_json
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

STALE_AFTER = timedelta(seconds=30)
POLL_EVERY_S = 0.5


def job_status(store: ObjectStore, job: str) -> dict[str, Any]:
    """Return one job in full, as `status` shows it.

    Raises:
        JobNotFoundError: There is none.
    """
    job_id = find_job_id(store, job)
    record = RecordStore(store).read(job_id).record
    beat = read_json(store, JobPaths(job_id).attempt(record.attempt).heartbeat)
    heartbeat = beat[0] if beat else {}
    tracking = read_json(store, JobPaths(job_id).tracking_cursor)
    entry = index_entry(record, heartbeat)
    confirmed = _with_confirmation(store, [entry])[0]
    if record.kind in GROUP_KINDS:
        confirmed["children"] = heartbeat.get("children") or _planned(store, job_id)
    return {
        **confirmed,
        "workers": heartbeat.get("workers", []),
        "details": heartbeat.get("details", {}),
        "run_id": tracking[0].get("run_id") if tracking else None,
        "model": dict(record.model),
        "decisions": dict(record.decisions),
        "attempts": [
            {
                "number": attempt.number,
                "started_at": attempt.started_at.isoformat(),
                "ended_at": attempt.ended_at.isoformat() if attempt.ended_at else None,
                "reason": attempt.reason,
                "progress": attempt.progress,
            }
            for attempt in record.attempts
        ],
    }


def _planned(store: ObjectStore, job_id: str) -> list[dict[str, Any]]:
    """Return the children of a group of which nothing is known but that they are asked for."""
    asked = json.loads(RecordStore(store).spec_body(job_id))["children"]
    return [
        planned_entry(c["step"], c["job_id"], c["spec"]["kind"], c["settings"], c["needs"])
        for c in asked
    ]


def list_jobs(store: ObjectStore, *, everything: bool = False) -> list[dict[str, Any]]:
    """Return the jobs, live ones first in line, then the ended ones, the newest first.

    Args:
        store: Where they are.
        everything: Also the ended jobs that the index no longer holds.
    """
    found = read_json(store, keys.INDEX)
    live = list(found[0]["live"]) if found else []
    ended = list(found[0]["ended"]) if found else []
    known = {entry["job_id"] for entry in live} | {entry["job_id"] for entry in ended}
    # A job is in the queue's folder before the orchestrator has seen it.
    unseen = [job for job in RecordStore(store).queued_ids() if job not in known]
    if everything:
        older = read_pages(store)
        others = [job for job in store.list_folders(keys.JOBS) if job not in known]
        ended += [older[job] for job in others if job in older]
        unseen += sorted({job for job in others if job not in older} - {*unseen})
    for entry in read_entries(store, unseen):
        if entry is not None:
            (ended if JobState(entry["state"]).has_ended else live).append(entry)
    # The orchestrator drops them from the index when it reads the requests.
    going = {keys.job_to_delete(info.key) for info in store.list_objects(keys.INBOX)}
    ended = [entry for entry in ended if entry["job_id"] not in going]
    ended.sort(key=lambda entry: entry["changed_at"], reverse=True)
    return _with_confirmation(store, live) + ended


def _with_confirmation(store: ObjectStore, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add whether each state is confirmed: nobody can write a record when all of Ray is dead."""
    lease = read_lease(store)
    now = store.now()
    shown = []
    for entry in entries:
        if JobState(entry["state"]).has_ended:
            shown.append({**entry, "stale": False, "confirmed_at": entry["changed_at"]})
            continue
        times = [lease.renewed_at if lease else datetime.fromisoformat(entry["submitted_at"])]
        if entry["heartbeat_at"] and entry["state"] in (JobState.RUNNING, JobState.STARTING):
            times.append(datetime.fromisoformat(entry["heartbeat_at"]))
        confirmed_at = min(times)
        stale = now - confirmed_at > STALE_AFTER
        shown.append({**entry, "stale": stale, "confirmed_at": confirmed_at.isoformat()})
    return shown


def request(
    store: ObjectStore, job_id: str, verb: str, details: dict[str, Any] | None = None
) -> str:
    """Ask the orchestrator to do something with a job; return the request's key."""
    records = RecordStore(store)
    record = records.read(job_id).record
    asked = Request(
        job_id=job_id, verb=verb, attempt=record.attempt, at=store.now(), details=details or {}
    )
    return records.post_request(asked)


def follow(store: ObjectStore, job_id: str, timeout_s: float | None) -> Iterator[dict[str, Any]]:
    """Yield the job's status again and again until it has ended or the time is up.

    A store that does not answer for a while is waited for: the job goes on without us.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    failures = 0
    while True:
        try:
            status = job_status(store, job_id)
            failures = 0
        except OrchestratorError:
            failures += 1
            if failures > 60:
                raise
        else:
            yield status
            if JobState(status["state"]).has_ended:
                return
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(POLL_EVERY_S)


def orchestrator_is_alive(store: ObjectStore) -> bool:
    """Tell whether an orchestrator holds a fresh lease on the store."""
    lease = read_lease(store)
    return lease is not None and lease.is_fresh
