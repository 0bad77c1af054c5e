"""What the command line does to the store: submit, ask, read, wait."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator import paths
from orchestrator.errors import BadInputError, OrchestratorError, SpecConflictError
from orchestrator.group_spec import GROUP_KINDS, GroupJob, planned_children
from orchestrator.job_index import index_entry, read_entries, read_pages
from orchestrator.job_lookup import find_job_id
from orchestrator.lease import read_lease
from orchestrator.paths import JobPaths, check_name
from orchestrator.records import RecordStore, Request, read_json
from orchestrator.smoke import smoke_job, smoke_job_id
from orchestrator.spec import Job
from orchestrator.state import JobState
from orchestrator.storage import ObjectStore

STALE_AFTER = timedelta(seconds=30)
POLL_EVERY_S = 0.5


@dataclass(frozen=True)
class Submission:
    """What came of a submit.

    Attributes:
        job_id: The job.
        is_new: False if the same spec was submitted under that id before.
    """

    job_id: str
    is_new: bool


def submit_job(store: ObjectStore, spec: Job | GroupJob, job_id: str | None = None) -> Submission:
    """Put a job into the queue; the same id with the same spec is the same job.

    Raises:
        SpecConflictError: The id is taken by another spec.
        BadInputError: The id cannot be used.
    """
    job_id = check_name("id", job_id) if job_id else _new_id(spec.name, store.now())
    if isinstance(spec, GroupJob):
        spec = spec.with_ids(job_id)
    records = RecordStore(store)
    if records.create(job_id, spec):
        return Submission(job_id, is_new=True)
    if records.submission(job_id).spec_hash != spec.spec_hash:
        raise SpecConflictError(job_id)
    return Submission(job_id, is_new=False)


def submit_with_smoke(
    store: ObjectStore, spec: Job | GroupJob, job_id: str | None = None
) -> Submission:
    """Put a job into the queue behind a small one that looks whether it would work.

    Raises:
        SpecConflictError: The id is taken by another spec.
        BadInputError: The id cannot be used.
    """
    if isinstance(spec, GroupJob):
        raise BadInputError(
            f"--smoke is for a single job; each job of a {spec.kind} begins with a smoke test"
        )
    job_id = check_name("id", job_id) if job_id else _new_id(spec.name, store.now())
    smoke_id = smoke_job_id(job_id)
    submit_job(store, smoke_job(spec, job_id), smoke_id)
    return submit_job(store, spec.model_copy(update={"waits_for_smoke": smoke_id}), job_id)


def _new_id(name: str, now: datetime) -> str:
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    ending = "".join(secrets.choice(alphabet) for _ in range(4))
    return f"{name}-{now:%Y%m%d-%H%M%S}-{ending}"


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
        confirmed["children"] = heartbeat.get("children") or planned_children(
            RecordStore(store).submission(job_id)
        )
    return {
        **confirmed,
        "workers": heartbeat.get("workers", []),
        "committed": heartbeat.get("committed"),
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


def list_jobs(store: ObjectStore, *, everything: bool = False) -> list[dict[str, Any]]:
    """Return the jobs, live ones first in line, then the ended ones, the newest first.

    Args:
        store: Where they are.
        everything: Also the ended jobs that the index no longer holds.
    """
    found = read_json(store, paths.INDEX)
    live = list(found[0]["live"]) if found else []
    ended = list(found[0]["ended"]) if found else []
    known = {entry["job_id"] for entry in live} | {entry["job_id"] for entry in ended}
    # A job is in the queue's folder before the orchestrator has seen it.
    unseen = [job for job in RecordStore(store).queued_ids() if job not in known]
    if everything:
        older = read_pages(store)
        others = [job for job in store.list_folders(paths.JOBS) if job not in known]
        ended += [older[job] for job in others if job in older]
        unseen += sorted({job for job in others if job not in older} - {*unseen})
    for entry in read_entries(store, unseen):
        if entry is not None:
            (ended if JobState(entry["state"]).has_ended else live).append(entry)
    # The orchestrator drops them from the index when it reads the requests.
    going = {paths.job_to_delete(info.key) for info in store.list_objects(paths.INBOX)}
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
