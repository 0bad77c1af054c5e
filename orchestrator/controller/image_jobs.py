"""Whether the sample sets that a job reads have been drawn."""

from collections.abc import Iterable

from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.specs.kinds import Output, leaves
from orchestrator.store.objects import ObjectStore


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
