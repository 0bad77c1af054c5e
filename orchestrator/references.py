"""What still needs a job: sample sets, registered models, and the group that it belongs to."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestrator import paths
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.job_lookup import find_job_id
from orchestrator.records import RecordStore, read_json
from orchestrator.registry import registered_versions
from orchestrator.spec import ModelRef, SampleJob
from orchestrator.state import JobState
from orchestrator.storage import ObjectStore
from orchestrator.submit import list_jobs

_THREADS = 16

logger = logging.getLogger(__name__)


def references_to(
    store: ObjectStore, job_id: str, versions: Callable[[str], list[str]] = registered_versions
) -> list[str]:
    """Return what refers to a job, one line each; nothing may be deleted while there is any.

    Args:
        store: Where the jobs are.
        job_id: The job.
        versions: Looks registered versions up; asked only where MLflow was told of the job.

    Raises:
        TrackingError: MLflow knows of the job and does not answer.
    """
    found = read_json(store, paths.JobPaths(job_id).tracking_cursor)
    told = bool(found and found[0].get("run_id"))
    registered = [f"the registered model {name}" for name in versions(job_id)] if told else []
    jobs = list_jobs(store, everything=True)
    family = _family(jobs, job_id)
    sets = [j["job_id"] for j in jobs if j["kind"] == "sample" and j["job_id"] != job_id]
    with ThreadPoolExecutor(_THREADS) as pool:
        uses = pool.map(lambda other: _draws_from(store, other, job_id), sets)
        drawn = [f"the sample set {name}" for name, used in zip(sets, uses, strict=True) if used]
    return registered + drawn + family


def _family(jobs: Sequence[Mapping[str, Any]], job_id: str) -> list[str]:
    """Return the group that still moves a job, and the jobs that a group is made of."""
    by_id = {job["job_id"]: job for job in jobs}
    parent = by_id.get(by_id.get(job_id, {}).get("parent"))
    moved_by = [parent] if parent and not JobState(parent["state"]).has_ended else []
    children = [job for job in jobs if job.get("parent") == job_id]
    return [f"the {job['kind']} {job['job_id']}" for job in (*moved_by, *children)]


def _draws_from(store: ObjectStore, sample_id: str, job_id: str) -> bool:
    records = RecordStore(store)
    try:
        record = records.read(sample_id).record
        if record.model:
            return str(record.model.get("job_id")) == job_id
        spec = records.spec(sample_id)
    except JobNotFoundError:
        return False
    except BadInputError as error:
        logger.warning("job=%s cannot be read and is taken to refer to it: %s", sample_id, error)
        return True
    return isinstance(spec, SampleJob) and _means(store, spec.model, job_id)


def _means(store: ObjectStore, ref: ModelRef, job_id: str) -> bool:
    """Tell whether a reference that nobody has resolved yet may become this job."""
    if ref.checkpoint is not None:
        return ref.checkpoint.startswith(f"{store.uri}/{paths.JobPaths(job_id).folder}")
    if ref.job is None:
        return False  # what is registered was looked up already
    try:
        return find_job_id(store, ref.job) == job_id
    except JobNotFoundError:
        return False
