"""Finds and removes what crashes left behind and nothing refers to.

Data of an attempt that has ended and that no commit names; multipart uploads older than a day;
marks without a spec; and jobs whose deletion was interrupted. A job with a record or a commit
that cannot be read is left alone: nobody knows what that names.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from orchestrator.artifacts.checkpoints.commit import decode_commit
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.client.deletion import Removed, delete_job, remove_objects
from orchestrator.client.stored_datasets import half_made
from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.troubles import concerns_all
from orchestrator.lifecycle.causes import headline
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectInfo, ObjectStore

UPLOADS_OLDER_THAN = timedelta(days=1)
MARKS_OLDER_THAN = timedelta(minutes=10)
_THREADS = 8

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What was found, and removed unless it was only looked for.

    Attributes:
        data: Data objects that no commit names.
        uploads: Parts of multipart uploads that nobody goes on with.
        marks: Marks without a spec.
        jobs: What was left of jobs whose deletion was interrupted.
        datasets: Chunks of data sets that nobody went on to prepare for a day.
        skipped: Jobs that were left alone, and why.
    """

    data: Removed
    uploads: Removed
    marks: Removed
    jobs: Removed
    datasets: Removed
    skipped: dict[str, str]


def collect_garbage(store: ObjectStore, *, dry_run: bool = False) -> Garbage:
    """Remove what nothing refers to; with `dry_run` only look for it."""
    job_ids, skipped = store.list_folders(keys.JOBS), dict[str, str]()

    def turn(job_id: str, action: Callable[[], _T]) -> _T | None:
        return _turn(store, job_id, action, skipped)

    with ThreadPoolExecutor(_THREADS) as pool:
        met = pool.map(lambda job_id: turn(job_id, partial(_look_at, store, job_id)), job_ids)
        looks = [look for look in met if look is not None]
    skipped |= {look.job_id: look.skipped for look in looks if look.skipped}
    data, jobs = Removed(), Removed()
    for look in looks:
        if look.orphans:
            action = partial(remove_objects, store, look.orphans, dry_run=dry_run)
            data += turn(look.job_id, action) or Removed()
        if look.is_half_deleted:
            jobs += turn(look.job_id, partial(_drop_job, store, look.job_id, dry_run)) or Removed()
    return Garbage(
        data=data,
        uploads=_drop_uploads(store, dry_run),
        marks=remove_objects(store, _stale_marks(store, set(job_ids)), dry_run=dry_run),
        jobs=jobs,
        datasets=remove_objects(store, half_made(store), dry_run=dry_run),
        skipped=skipped,
    )


def _turn(
    store: ObjectStore, job_id: str, action: Callable[[], _T], skipped: dict[str, str]
) -> _T | None:
    """Do one job's turn; what is amiss with one job keeps no other's garbage."""
    try:
        return action()
    except Exception as error:
        if concerns_all(store, error):
            raise
        skipped[job_id] = headline(error)
        return None


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What a look at one job found."""

    job_id: str
    orphans: tuple[ObjectInfo, ...] = ()
    is_half_deleted: bool = False
    skipped: str = ""


def _look_at(store: ObjectStore, job_id: str) -> _Look:
    try:
        record = RecordStore(store).read(job_id).record
        if record.deleted_at is not None:
            return _Look(job_id=job_id, is_half_deleted=True)
        candidates = list(_data_of_ended_attempts(store, record))
        named = _named_keys(store, JobPaths(job_id)) if candidates else set()
    except JobNotFoundError:  # some stores still list a folder that is empty
        is_empty = next(store.list_objects(JobPaths(job_id).folder), None) is None
        skipped = "" if is_empty else "it has neither a spec nor a record"
        return _Look(job_id=job_id, skipped=skipped)
    return _Look(job_id=job_id, orphans=tuple(i for i in candidates if i.key not in named))


def _data_of_ended_attempts(store: ObjectStore, record: JobRecord) -> Iterator[ObjectInfo]:
    for attempt in record.attempts:
        if attempt.ended_at is not None:
            paths_of = JobPaths(record.job_id).attempt(attempt.number)
            yield from store.list_objects(paths_of.all_data)
            if record.state is JobState.SUCCEEDED:  # nobody goes on from what was drawn by half
                yield from store.list_objects(paths_of.partial)


def _named_keys(store: ObjectStore, job: JobPaths) -> set[str]:
    """Return the keys that the job's commits name; read after the data were listed.

    Raises:
        CheckpointError, ShardDamagedError: A commit cannot be read.
    """
    named: set[str] = set()
    for info in store.list_objects(job.checkpoints):
        commit = decode_commit(store.get(info.key))
        named.update(f"{commit.folder}{file.name}" for file in commit.files)
    shards = SampleShards(store, job)
    for index in shards.indices():
        shard = shards.find(index)
        if shard is not None:
            named.update((shard.data_key, shard.frames_key))
    return named


def _stale_marks(store: ObjectStore, job_ids: set[str]) -> Iterator[ObjectInfo]:
    for folder in (*(mark.value for mark in Mark), keys.TROUBLES):
        for info in store.list_objects(folder):
            is_old = store.now() - info.modified_at > MARKS_OLDER_THAN
            if is_old and info.key.removeprefix(folder).partition("/")[0] not in job_ids:
                yield info


def _drop_uploads(store: ObjectStore, dry_run: bool) -> Removed:
    uploads = store.open_uploads(UPLOADS_OLDER_THAN)
    if not dry_run:
        for upload in uploads:
            store.abort_upload(upload)
    return Removed(len(uploads), sum(upload.size_bytes for upload in uploads))


def _drop_job(store: ObjectStore, job_id: str, dry_run: bool) -> Removed:
    if not dry_run:
        try:
            return delete_job(store, job_id)
        except JobNotFoundError:  # it went with its group a moment ago
            return Removed()
    return remove_objects(store, store.list_objects(JobPaths(job_id).folder), dry_run=True)
