"""Puts jobs into the queue."""

import secrets
from dataclasses import dataclass
from datetime import datetime

from orchestrator.errors import SpecConflictError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import create_job, read_submitted
from orchestrator.specs.asked import Submitted, differences
from orchestrator.specs.envelope import Asked
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.smoke import behind_smoke_tests
from orchestrator.store.names import check_name, made_id
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True)
class Submission:
    """What came of a submit.

    Attributes:
        job_id: The job.
        is_new: False if the same spec was submitted under that id before.
    """

    job_id: str
    is_new: bool


def submit_job(
    store: ObjectStore,
    spec: Job | GroupJob,
    job_id: str | None = None,
    asked: Asked | None = None,
) -> Submission:
    """Put a job into the queue; the same id with the same spec is the same job.

    Args:
        store: Where the jobs are.
        spec: What is asked, with every default.
        job_id: Its id; None to make one.
        asked: What of it the user wrote: only that is compared with what stands under the id.

    Raises:
        SpecConflictError: The id is taken by another spec.
        BadInputError: The id cannot be used.
    """
    job_id = check_name("id", job_id) if job_id else _new_id(spec.name, store.now())
    if isinstance(spec, GroupJob):
        spec = spec.with_ids(job_id)
    return _put(store, job_id, Submitted(spec, asked))


def _put(store: ObjectStore, job_id: str, asked: Submitted) -> Submission:
    records = RecordStore(store)
    if create_job(records, job_id, asked):
        return Submission(job_id, is_new=True)
    differing = differences(asked, read_submitted(records, job_id))
    if differing:
        raise SpecConflictError(job_id, tuple(differing))
    return Submission(job_id, is_new=False)


def submit_with_smoke(
    store: ObjectStore,
    spec: Job | GroupJob,
    job_id: str | None = None,
    asked: Asked | None = None,
) -> Submission:
    """Put a job into the queue behind small ones that look whether it would work; see `submit_job`.

    Raises:
        SpecConflictError: The id is taken by another spec.
        BadInputError: The id cannot be used.
    """
    job_id = check_name("id", job_id) if job_id else _new_id(spec.name, store.now())
    if isinstance(spec, GroupJob):
        spec = spec.with_ids(job_id)
    waiting, smokes = behind_smoke_tests(Submitted(spec, asked), job_id)
    for smoke_id, smoke in smokes.items():
        _put(store, smoke_id, smoke)
    return _put(store, job_id, waiting)


def _new_id(name: str, now: datetime) -> str:
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    ending = "".join(secrets.choice(alphabet) for _ in range(4))
    return made_id(name, f"{now:%Y%m%d-%H%M%S}", ending)
