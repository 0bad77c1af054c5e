"""Whether the images that a job reads are there: sample sets, and data sets that are prepared."""

from collections.abc import Iterable

from orchestrator.artifacts.datasets.fit import check_fit
from orchestrator.artifacts.datasets.refs import describe
from orchestrator.errors import BadInputError, ConditionFailedError, JobNotFoundError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.prepared_sets import (
    PREPARED_SET,
    PreparedSet,
    find_prepared,
    read_prepared,
    with_prepared,
)
from orchestrator.jobs.records import RecordStore
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import Output, leaves
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


def settle_dataset(
    store: ObjectStore, job_id: str, spec: Job, preparation: str, smoke_of: str = ""
) -> str | None:
    """Fix once which data set a job reads that names a preparation; its smoke test reads the same.

    Args:
        store: Where the jobs are.
        job_id: The job that reads.
        spec: What is asked of it.
        preparation: The id or name of the other one.
        smoke_of: The job that this one is a smoke test of, for which it is decided then; "" for
            none.

    Returns:
        The id of the preparation as long as that goes on; None when the set is fixed.

    Raises:
        BadInputError: There will be no such set, or the job cannot take it.
    """
    if read_prepared(store, job_id) is not None:
        return None
    decided_for = smoke_of or job_id
    prepared = read_prepared(store, decided_for)
    if prepared is None:
        other_id, prepared = find_prepared(store, preparation)
        if prepared is None:
            return other_id
    pinned = with_prepared(spec, prepared)
    if pinned.dataset_input is not None:
        check_fit(pinned, describe(store, str(pinned.dataset_input.sha256)))
    prepared = _decide(store, decided_for, prepared)
    if smoke_of:
        _decide(store, job_id, prepared)
    return None


def _decide(store: ObjectStore, job_id: str, prepared: PreparedSet) -> PreparedSet:
    """Write down which set a job reads, unless that was decided; return what stands."""
    try:
        store.put(JobPaths(job_id).dataset, PREPARED_SET.encode(prepared), if_absent=True)
    except ConditionFailedError:  # its smoke test, or an orchestrator before this one, did it
        return read_prepared(store, job_id) or prepared
    return prepared


def unfinished_set(store: ObjectStore, jobs: Iterable[str]) -> str | None:
    """Return the first job, by id, whose sample set is still being drawn; None if all have ended.

    Whether a set that has ended is whole, whoever reads it looks at itself.

    Args:
        store: Where the jobs are.
        jobs: Ids or names.

    Raises:
        BadInputError: There is no such job.
    """
    for name in jobs:
        try:
            job_id = find_job_id(store, name)
            record = RecordStore(store).read(job_id).record
        except JobNotFoundError as error:
            raise BadInputError(f"the images of {name}: {error}") from error
        if leaves(record.kind, Output.SAMPLES) and not record.state.has_ended:
            return job_id
    return None
