"""What the command line reads of the jobs, and asks of the orchestrator: status, list, requests.

Nothing here reads a job file, so these verbs need not build what a job file may say.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.errors import BadInputError, JobNotFoundError, StoreUnavailableError
from orchestrator.jobs.curve import read_curve
from orchestrator.jobs.decisions import read_decisions
from orchestrator.jobs.descent import Ancestor, ancestors
from orchestrator.jobs.heartbeat import Heartbeat, WorkerReport
from orchestrator.jobs.inbox import DEFAULT_GRACE_S, Request, Verb, post_request
from orchestrator.jobs.index import Index, read_entries, read_index, read_pages
from orchestrator.jobs.index_entry import IndexEntry, index_entry, read_said
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.prices import cost_at, cost_of_jobs
from orchestrator.jobs.progress import ChildEntry, GroupProgress, planned_entry
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.tracked_run import tracked_run
from orchestrator.jobs.troubles import Trouble, read_troubles, troubled_jobs
from orchestrator.lifecycle.attempts import gpu_hours
from orchestrator.lifecycle.cost import Cost
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import GROUP_KINDS, AttemptRecord, JobRecord, JobState
from orchestrator.specs.stored_parts import CURVE_PARTS, GROUP_PARTS
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

STALE_AFTER = timedelta(seconds=30)
POLL_EVERY_S = 0.5
FIRST_UNIT_S = 120.0  # the first step may be compiled
_SLOWEST_UNITS = 3.0
_OWN_OF_CHILD = ("step", "settings")
_OF_ENTRY = tuple(name for name in ChildEntry.__dataclass_fields__ if name not in _OWN_OF_CHILD)


@dataclass(frozen=True, kw_only=True)
class ListedJob(IndexEntry):
    """A job as `list` shows it.

    Attributes:
        stale: Whether nobody has confirmed its state for a while.
        confirmed_at: When somebody did.
        stalled: Whether it is known to run, and does not get further.
        has_trouble: Whether something of it waits in the background; `status` says what and why.
    """

    stale: bool = False
    confirmed_at: datetime
    stalled: bool = False
    has_trouble: bool = False


@dataclass(frozen=True, kw_only=True)
class JobStatus(ListedJob):
    """A job in full, as `status` shows it.

    Attributes:
        workers: What each worker of its attempt does.
        details: What else its attempt shows.
        run_id: Its run in MLflow.
        experiment_id: The experiment of that run.
        mlflow_page: Where a browser finds the experiment's runs; "" where nobody said so.
        model: The checkpoint that it reads; None as long as there is none.
        descent: That checkpoint's training, what it started from, and so on.
        decisions: What was fixed once for the job.
        attempts: What each of them came to.
        children: The jobs of a group, or the evaluations of a training's checkpoints.
        troubles: What of it waits in the background, and why.
        gpu_hours: GPU-hours that its attempts were given since it was submitted or retried.
        cost: What its GPUs cost, and those of a group's jobs; None without prices or without GPUs.
    """

    workers: tuple[WorkerReport, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)
    run_id: str | None = None
    experiment_id: str = ""
    mlflow_page: str = ""
    model: ResolvedModel | None = None
    descent: tuple[Ancestor, ...] = ()
    decisions: Mapping[str, object] = field(default_factory=dict)
    attempts: tuple[AttemptRecord, ...] = ()
    children: tuple[ChildEntry, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    gpu_hours: float = 0.0
    cost: Cost | None = None


def job_status(store: ObjectStore, job: str) -> JobStatus:
    """Return one job in full, as `status` shows it.

    Raises:
        JobNotFoundError: There is none.
    """
    job_id = find_job_id(store, job)
    record = RecordStore(store).read(job_id).record
    said = read_said(store, record)
    tracked = tracked_run(store, job_id)
    decided = read_decisions(store, JobPaths(job_id))
    (listed,) = _with_confirmation(store, [index_entry(record, said)])
    children: tuple[ChildEntry, ...] = ()
    if record.kind in GROUP_KINDS:
        children = said.children if isinstance(said, GroupProgress) else _planned(store, job_id)
    else:
        children = _evaluations(store, job_id)
    return JobStatus(
        **vars(listed),
        workers=said.workers if isinstance(said, Heartbeat) else (),
        details=said.details if isinstance(said, Heartbeat) else {},
        run_id=tracked.run_id or None,
        experiment_id=tracked.experiment_id,
        model=record.model,
        descent=ancestors(store, record.model),
        decisions=decided.values if decided else {},
        attempts=record.attempts,
        children=children,
        troubles=tuple(read_troubles(store, job_id)),
        gpu_hours=round(gpu_hours(record, store.now()), 4),
        cost=_cost(store, record, children, listed),
    )


def _cost(
    store: ObjectStore, record: JobRecord, children: Sequence[ChildEntry], listed: ListedJob
) -> Cost | None:
    if record.kind not in GROUP_KINDS:  # the evaluations of a training have costs of their own
        num_images = listed.committed if listed.unit == "images" else 0
        return cost_at(store, [record], store.now(), num_images)
    begun = [child.job_id for child in children if child.attempt]
    return cost_of_jobs(store, begun)


def _planned(store: ObjectStore, job_id: str) -> tuple[ChildEntry, ...]:
    """Return the children of a group of which nothing is known but that they are asked for."""
    group = GROUP_PARTS.of(RecordStore(store).stored_spec(job_id).spec, job_id)
    return tuple(
        planned_entry(child.step, child.job_id, child.spec.kind, child.settings, child.needs)
        for child in group.children
    )


def _evaluations(store: ObjectStore, job_id: str) -> tuple[ChildEntry, ...]:
    """Return what a training's checkpoints are worth, and what is being found out.

    Nothing of a job that asked for no such evaluations: the index is large.
    """
    if not _is_evaluated(store, job_id):
        return ()
    points = [
        ChildEntry(
            step=f"at-{point.step}",
            job_id=point.job_id,
            kind="evaluate",
            state=JobState.SUCCEEDED,
            scores=point.values,
        )
        for point in read_curve(store, job_id)
    ]
    known = {point.step for point in points}
    index = read_index(store) or Index()
    others = [
        ChildEntry(step=str(e.step), **{name: getattr(e, name) for name in _OF_ENTRY})
        for e in sorted((*index.live, *index.ended), key=lambda entry: entry.submitted_at)
        if e.parent == job_id and str(e.step).removesuffix("-samples") not in known
    ]
    return (*points, *others)


def _is_evaluated(store: ObjectStore, job_id: str) -> bool:
    """Tell whether a job asked that its checkpoints are evaluated while it goes on."""
    try:
        asked = CURVE_PARTS.of(RecordStore(store).stored_spec(job_id).spec, job_id)
    except (JobNotFoundError, BadInputError):  # deleted by half, or damaged: its record still tells
        return False
    return asked.evaluation.metrics is not None


def list_jobs(store: ObjectStore, *, everything: bool = False) -> list[ListedJob]:
    """Return the jobs, live ones first in line, then the ended ones, the newest first.

    Args:
        store: Where they are.
        everything: Also the ended jobs that the index no longer holds.
    """
    index = read_index(store) or Index()
    live, ended = list(index.live), list(index.ended)
    known = {entry.job_id for entry in (*live, *ended)}
    # A job is in the queue's folder before the orchestrator has seen it.
    unseen = [job for job in RecordStore(store).queued_ids() if job not in known]
    if everything:
        older = read_pages(store)
        others = [job for job in store.list_folders(keys.JOBS) if job not in known]
        ended += [older[job] for job in others if job in older]
        unseen += sorted({job for job in others if job not in older} - {*unseen})
    for entry in read_entries(store, unseen):
        if entry is not None:
            (ended if entry.state.has_ended else live).append(entry)
    # The orchestrator drops them from the index when it reads the requests.
    going = {keys.job_to_delete(info.key) for info in store.list_objects(keys.INBOX)}
    ended = [entry for entry in ended if entry.job_id not in going]
    ended.sort(key=lambda entry: entry.changed_at, reverse=True)
    return _with_confirmation(store, [*live, *ended])


def _with_confirmation(store: ObjectStore, entries: list[IndexEntry]) -> list[ListedJob]:
    """Add whether each state is confirmed: nobody can write a record when all of Ray is dead."""
    lease, troubled = read_lease(store), troubled_jobs(store)
    now = store.now()
    shown = []
    for entry in entries:
        if entry.state.has_ended:
            has_trouble = entry.job_id in troubled
            shown.append(
                ListedJob(**vars(entry), confirmed_at=entry.changed_at, has_trouble=has_trouble)
            )
            continue
        times = [lease.renewed_at if lease else entry.submitted_at]
        if entry.heartbeat_at and entry.state in (JobState.RUNNING, JobState.STARTING):
            times.append(entry.heartbeat_at)
        confirmed_at = min(times)
        stale = now - confirmed_at > STALE_AFTER
        stalled = not stale and is_stalled(entry, now)
        current = replace(entry, rate_per_s=0.0) if stalled else entry  # the pace was before
        shown.append(
            ListedJob(
                **vars(current),
                stale=stale,
                confirmed_at=confirmed_at,
                stalled=stalled,
                has_trouble=entry.job_id in troubled,
            )
        )
    return shown


def is_stalled(entry: IndexEntry, now: datetime) -> bool:
    """Tell whether an attempt that works has not got further for longer than it should take."""
    if entry.state is not JobState.RUNNING or entry.phase is not Phase.RUNNING:
        return False
    if entry.moved_at is None:
        return False
    unit_s = _SLOWEST_UNITS / entry.rate_per_s if entry.rate_per_s else FIRST_UNIT_S
    return (now - entry.moved_at).total_seconds() > max(STALE_AFTER.total_seconds(), unit_s)


def request(store: ObjectStore, job_id: str, verb: Verb, grace_s: float = DEFAULT_GRACE_S) -> str:
    """Ask the orchestrator to do something with a job; return the request's key."""
    attempt = RecordStore(store).read(job_id).record.attempt
    asked = Request(job_id=job_id, verb=verb, attempt=attempt, at=store.now(), grace_s=grace_s)
    return post_request(store, asked)


def follow(store: ObjectStore, job_id: str, timeout_s: float | None) -> Iterator[JobStatus]:
    """Yield the job's status again and again until it has ended or the time is up.

    A store that does not answer for a while is waited for: the job goes on without us.

    Raises:
        JobNotFoundError: Somebody deleted it.
        BadInputError: A newer version wrote what is read.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    failures = 0
    while True:
        try:
            status = job_status(store, job_id)
            failures = 0
        except StoreUnavailableError:
            failures += 1
            if failures > 60:
                raise
        else:
            yield status
            if status.state.has_ended:
                return
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(POLL_EVERY_S)


def orchestrator_is_alive(store: ObjectStore) -> bool:
    """Tell whether an orchestrator holds a fresh lease on the store."""
    lease = read_lease(store)
    return lease is not None and lease.is_fresh
