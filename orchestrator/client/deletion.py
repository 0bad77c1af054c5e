"""Removes an ended job: what it wrote first, its record last, so that it can be done again.

First the record says that the job is being deleted: from then on nobody can retry it. Then the
orchestrator is told to drop it from the index, and `list` shows it no more. A process that dies in
between leaves the record, by which the next `delete` or `gc` finds the job and goes on.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from orchestrator.artifacts.checkpoints.references import let_go_of_model
from orchestrator.client.references import references_to
from orchestrator.client.status import follow, list_jobs, request
from orchestrator.client.unreadable import record_to_delete
from orchestrator.counts import does, few
from orchestrator.errors import (
    BadInputError,
    ConditionFailedError,
    JobNotFoundError,
    OrchestratorError,
)
from orchestrator.jobs.inbox import DEFAULT_GRACE_S, Request, Verb, post_request
from orchestrator.jobs.lookup import LAST, find_job_id
from orchestrator.jobs.marks import drop_all_marks
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.lifecycle.state import GROUP_KINDS, JobRecord
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import Output, leaves
from orchestrator.specs.on_the_way import evaluation_ids
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.names import check_name
from orchestrator.store.objects import ObjectInfo, ObjectStore

_THREADS = 16
_MARGIN_S = 30.0


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be.

    Attributes:
        objects: How many.
        size_bytes: Of all together.
    """

    objects: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(self.objects + other.objects, self.size_bytes + other.size_bytes)


def _ends_in_time(store: ObjectStore, job_id: str) -> bool:
    *_, last = follow(store, job_id, DEFAULT_GRACE_S + _MARGIN_S)
    return last.state.has_ended


def find_deletable(
    store: ObjectStore,
    job: str,
    references: Callable[[ObjectStore, Sequence[str]], list[str]] = references_to,
    *,
    force: bool = False,
) -> list[str]:
    """Return the id of a job, given by id or name, and after it the ids of the jobs that go too.

    Evaluations of a training's checkpoints may still live: see `end_evaluations`.

    Args:
        store: Where the jobs are.
        job: An id, or a name.
        references: Returns what refers to one of some jobs.
        force: Whether it goes also where its record cannot be read, see `record_to_delete`.

    Raises:
        JobNotFoundError: There is none.
        OrchestratorError: One has not ended, or something refers to one; the message names it.
    """
    # A job that was deleted by half has no spec any more, only a record.
    has_record = job != LAST and store.exists(JobPaths(check_name("job", job)).record)
    job_id = job if has_record else find_job_id(store, job)
    record = record_to_delete(store, job_id, force=force).record
    members = _family(store, record)
    ids = [member.job_id for member in members]
    if record.deleted_at is not None:
        return ids
    trainings = {member.job_id for member in members if member.kind not in GROUP_KINDS}
    for member in members:
        if not member.state.has_ended and member.parent not in trainings:
            raise OrchestratorError(
                f"job {member.job_id} is {member.state}; only ended jobs can be deleted: "
                f"`ddpmctl cancel {member.job_id}` first"
            )
    found = references(store, ids)
    if found:
        refer = does(len(found), "refer")
        raise OrchestratorError(f"{few(found)} {refer} to job {job_id}; delete that first")
    return ids


def end_evaluations(
    store: ObjectStore,
    job_ids: Iterable[str],
    has_ended: Callable[[ObjectStore, str], bool] = _ends_in_time,
) -> None:
    """Cancel what still lives of the jobs that go with a training, and wait for its end.

    Args:
        store: Where they are.
        job_ids: As `find_deletable` returned them.
        has_ended: Waits for one, and tells whether it has ended.

    Raises:
        OrchestratorError: One does not end.
    """
    records = RecordStore(store)
    living = [one for one in job_ids if not records.read(one).record.state.has_ended]
    for job_id in living:
        request(store, job_id, Verb.CANCEL)
    for job_id in living:
        if not has_ended(store, job_id):
            raise OrchestratorError(f"job {job_id} was cancelled and has not ended; try again")


def _family(store: ObjectStore, record: JobRecord) -> list[JobRecord]:
    """Return a job and all that it was made of or made, whatever others make in turn."""
    children = _children(store, record)
    return [record, *(one for child in children for one in _family(store, child))]


def _children(store: ObjectStore, record: JobRecord) -> list[JobRecord]:
    """Return the jobs of a group, or the evaluations of a training, the last one first."""
    records = RecordStore(store)
    if record.kind not in GROUP_KINDS and not leaves(record.kind, Output.CHECKPOINTS):
        return []
    try:
        ids = _children_ids(read_submission(records, record.job_id), record.job_id)
    except JobNotFoundError:  # deleted by half: the jobs went before the spec
        return []
    except BadInputError:  # what cannot be read must go all the same: its jobs name it
        jobs = list_jobs(store, everything=True)
        ids = [job.job_id for job in jobs if job.parent == record.job_id]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(partial(_existing, records), reversed(ids))
        return [one for one in found if one is not None and one.parent == record.job_id]


def _children_ids(spec: Job | GroupJob, job_id: str) -> list[str]:
    if isinstance(spec, GroupJob):
        return [child.job_id for child in spec.children]
    return evaluation_ids(job_id, spec)


def _existing(records: RecordStore, job_id: str) -> JobRecord | None:
    try:
        return records.read(job_id).record
    except JobNotFoundError:
        return None


def delete_job(store: ObjectStore, job_id: str, *, force: bool = False) -> Removed:
    """Remove everything of an ended job, and of its jobs if it is a group; return what that was.

    Args:
        store: Where it is.
        job_id: The job.
        force: As for `find_deletable`.

    Raises:
        OrchestratorError: It was retried in between.
    """
    job, record = JobPaths(job_id), _marked(store, job_id, force=force)
    removed = Removed()
    for child in _children(store, record):
        removed += delete_job(store, child.job_id)
    request = Request(job_id=job_id, verb=Verb.DELETE, attempt=record.attempt, at=store.now())
    post_request(store, request)
    drop_all_marks(store, job_id)
    remove_objects(store, store.list_objects(keys.trouble(job_id, "")))
    last = (job.spec, job.record)
    let_go_of_model(store, record.model, job_id)
    infos = list(store.list_objects(job.folder))
    removed += remove_objects(store, [info for info in infos if info.key not in last])
    for key in last:  # one after the other: by the record alone it is found again
        removed += remove_objects(store, [info for info in infos if info.key == key])
    return removed


def _marked(store: ObjectStore, job_id: str, *, force: bool) -> JobRecord:
    """Write into the record that the job goes, so that no retry brings it back."""
    current = record_to_delete(store, job_id, force=force)
    if current.record.deleted_at is not None:
        return current.record
    if not current.record.state.has_ended:
        raise OrchestratorError(f"job {job_id} is {current.record.state} now; nothing was deleted")
    records = RecordStore(store, fence=current.record.fence)
    try:
        return records.write(current, replace(current.record, deleted_at=store.now())).record
    except ConditionFailedError as error:
        raise OrchestratorError(
            f"job {job_id} changed at this very moment; nothing was deleted, try again"
        ) from error


def remove_objects(
    store: ObjectStore, infos: Iterable[ObjectInfo], *, dry_run: bool = False
) -> Removed:
    """Remove objects, several at a time; with `dry_run` only count them."""
    doomed = list(infos)
    if not dry_run:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(store.delete, [info.key for info in doomed]))
    return Removed(len(doomed), sum(info.size_bytes for info in doomed))
