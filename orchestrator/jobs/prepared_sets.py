"""Which data set a preparation came to, and which one a job reads that named the preparation.

Both are the same small object: below the preparation when it is done, and below the reader once,
when the orchestrator found it. A later preparation of the same name changes no job that has begun.
"""

from dataclasses import dataclass

from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.lookup import exact_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import Input, Output, leaves
from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """A data set of the store.

    Attributes:
        sha256: Its name without labels.
        labelled_sha256: Its name with them; "" where it has none.
        source: Where its images are from.
    """

    sha256: str
    labelled_sha256: str = ""
    source: str = ""


PREPARED_SET = Codec(PreparedSet, "prepared data set", indent=1)


def read_prepared(store: ObjectStore, job_id: str) -> PreparedSet | None:
    """Return the set that a job prepared, or was found to read; None if there is none yet."""
    found = PREPARED_SET.read(store, JobPaths(job_id).dataset)
    return found[0] if found else None


def find_prepared(store: ObjectStore, job: str) -> tuple[str, PreparedSet | None]:
    """Return the id of a preparation and what came of it; None as long as it has not ended.

    Args:
        store: Where the jobs are.
        job: Its id, or a name (its newest job).

    Raises:
        BadInputError: There is no such job, it is of another kind, or it ended without a data set.
    """
    try:
        job_id = exact_job_id(store, job)
        record = RecordStore(store).read(job_id).record
    except JobNotFoundError as error:
        raise BadInputError(f"dataset.job: {error}") from error
    if not leaves(record.kind, Output.DATASET):
        raise BadInputError(f"dataset.job: {job_id} is a {record.kind} job and prepares no set")
    prepared = read_prepared(store, job_id)
    if prepared is None and record.state.has_ended:
        raise BadInputError(f"dataset.job: {job_id} ended as {record.state} without a data set")
    return job_id, prepared if record.state.has_ended else None


def with_prepared(spec: Job, prepared: PreparedSet) -> Job:
    """Return a job with the images that a preparation came to, with labels if it uses them."""
    asked = spec.dataset_input
    if asked is None:
        return spec
    name = prepared.sha256
    if spec.reads_labels and prepared.labelled_sha256:
        name = prepared.labelled_sha256
    pinned = asked.model_copy(update={"sha256": name, "source": prepared.source})
    return spec.model_copy(update={Input.DATASET.value: pinned})


def settled(store: ObjectStore, job_id: str, spec: Job) -> Job:
    """Return a job with the images that it was found to read, where it named a preparation."""
    asked = spec.dataset_input
    if asked is None or asked.job is None:
        return spec
    prepared = read_prepared(store, job_id)
    return spec if prepared is None else with_prepared(spec, prepared)
