"""What still needs a job: whoever reads its model, set or images, and the group it belongs to."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from orchestrator.client.status import list_jobs
from orchestrator.client.unreadable import NOTE, may_name, unlisted
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.index_entry import IndexEntry
from orchestrator.jobs.lookup import exact_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec, read_submission
from orchestrator.jobs.tracked_run import tracked_run
from orchestrator.lifecycle.state import GROUP_KINDS, JobState
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.specs.sections import ModelRef
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking.registry import registered_versions

_THREADS = 16

logger = logging.getLogger(__name__)


def references_to(
    store: ObjectStore,
    job_ids: Sequence[str],
    versions: Callable[[str], list[str]] = registered_versions,
) -> list[str]:
    """Return what refers to some jobs that would go together; while there is any, none may go.

    Args:
        store: Where the jobs are.
        job_ids: The jobs; what they are to each other does not count.
        versions: Looks registered versions up; asked only where a job has a run in MLflow.

    Returns:
        One line each, as "the sample set digits-samples".

    Raises:
        TrackingError: MLflow knows of a job and does not answer.
    """
    going = frozenset(job_ids)
    tracked = [job_id for job_id in job_ids if _has_run(store, job_id)]
    registered = [f"the registered model {name}" for job_id in tracked for name in versions(job_id)]
    jobs = list_jobs(store, everything=True)
    names = going | {job.name for job in jobs if job.job_id in going}

    def name_of(other: IndexEntry) -> str | None:
        return _named(store, other, going, names)

    others = [job for job in jobs if job.kind in JOB_KINDS and job.job_id not in going]
    groups = [job for job in jobs if job.kind in GROUP_KINDS and job.job_id not in going]
    with ThreadPoolExecutor(_THREADS) as pool:
        named = [text for text in pool.map(name_of, others) if text]
        planned = [text for text in pool.map(name_of, groups) if text]
    hidden = unlisted(store, {*going, *(job.job_id for job in jobs)}, names)
    return registered + named + hidden + list(dict.fromkeys(planned + _family(jobs, going)))


def _has_run(store: ObjectStore, job_id: str) -> bool:
    """Tell whether a job has a run in MLflow."""
    return bool(tracked_run(store, job_id).run_id)


def _family(jobs: Sequence[IndexEntry], going: frozenset[str]) -> list[str]:
    """Return the groups that still move one of the jobs, and the jobs that one is made of."""
    parents = {job.parent for job in jobs if job.job_id in going} - going
    kept = [
        job
        for job in jobs
        if (job.job_id in parents and not job.state.has_ended)
        or (job.parent in going and job.job_id not in going)
    ]
    return [f"the {job.kind} {job.job_id}" for job in kept]


def _named(
    store: ObjectStore, other: IndexEntry, job_ids: frozenset[str], names: frozenset[str]
) -> str | None:
    """Return what a job or a group is called that needs one of these jobs; None if it does not.

    Args:
        store: Where the jobs are.
        other: The job or the group.
        job_ids: These jobs.
        names: Their ids and names: of what cannot be read, the text tells.
    """
    is_group = other.kind in GROUP_KINDS
    called = f"the {other.kind if is_group else JOB_KINDS[other.kind].noun} {other.job_id}"
    try:
        needs = (_plans if is_group else _reads_from)(store, other, job_ids)
    except JobNotFoundError:
        return None
    except BadInputError as error:
        logger.warning("job=%s cannot be read: %s", other.job_id, error)
        return f"{called} {NOTE}" if may_name(store, other.job_id, names) else None
    return called if needs else None


def _reads_from(store: ObjectStore, user: IndexEntry, job_ids: frozenset[str]) -> bool:
    """Tell whether a job reads the model, the data set or the images of one of these jobs."""
    records = RecordStore(store)
    record = records.read(user.job_id).record
    if record.model is not None and record.model.job_id in job_ids:
        return True
    spec = read_spec(records, user.job_id)
    is_waiting = not record.state.has_ended
    has_model = record.model is not None
    return _asks_for(store, spec, job_ids, has_model=has_model, is_waiting=is_waiting)


def _plans(store: ObjectStore, group: IndexEntry, job_ids: frozenset[str]) -> bool:
    """Tell whether a job that a group has not created yet would read from one of these jobs."""
    if group.state is JobState.SUCCEEDED:  # it creates no more
        return False
    spec = read_submission(RecordStore(store), group.job_id)
    return isinstance(spec, GroupJob) and any(
        _asks_for(store, child.spec, job_ids, has_model=False, is_waiting=True)
        and not store.exists(keys.JobPaths(child.job_id).spec)  # else it answers for itself
        for child in spec.children
    )


def _asks_for(
    store: ObjectStore, spec: Job, job_ids: frozenset[str], *, has_model: bool, is_waiting: bool
) -> bool:
    """Tell whether what is asked of a job is to come from one of these jobs.

    Args:
        store: Where the jobs are.
        spec: What is asked.
        job_ids: These jobs.
        has_model: Whether its checkpoint was found, so that what was asked counts no more.
        is_waiting: Whether it may still read images.
    """
    model = None if has_model else spec.model_input
    if model is not None and _means(store, model, job_ids):
        return True
    asked = spec.dataset_input
    # Once it was found which set that is, the set is held and not the job that made it.
    waited_for = asked.job if asked is not None and asked.sha256 is None else None
    if waited_for is not None and _is_one_of(store, waited_for, job_ids):
        return True
    sets = spec.image_jobs if is_waiting else ()
    return any(_is_one_of(store, name, job_ids) for name in sets)


def _means(store: ObjectStore, ref: ModelRef, job_ids: frozenset[str]) -> bool:
    """Tell whether a reference that nobody has resolved yet may become one of these jobs."""
    if ref.checkpoint is not None:
        folders = tuple(f"{store.uri}/{keys.JobPaths(job_id).folder}" for job_id in job_ids)
        return ref.checkpoint.startswith(folders)
    if ref.job is None:
        return False  # what is registered was looked up already
    return _is_one_of(store, ref.job, job_ids)


def _is_one_of(store: ObjectStore, job: str, job_ids: frozenset[str]) -> bool:
    """Tell whether a job, given by id or name, is one of these."""
    try:
        return exact_job_id(store, job) in job_ids
    except (JobNotFoundError, BadInputError):  # what means nothing holds nothing
        return False
