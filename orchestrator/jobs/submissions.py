"""What was asked of a job: put into the store with its marks, and read back as what it means.

Apart from `records`, since building the models of what a job file may say takes longer than most
verbs do.
"""

from orchestrator.jobs.prepared_sets import settled
from orchestrator.jobs.records import RecordStore
from orchestrator.specs.asked import Submitted
from orchestrator.specs.envelope import StoredSpec
from orchestrator.specs.group import GroupJob, job_of, stored_submission
from orchestrator.specs.job import Job


def create_job(records: RecordStore, job_id: str, asked: Submitted) -> bool:
    """Put a new job; false if there is a job of that id.

    Args:
        records: Where it goes.
        job_id: Its id.
        asked: What is asked, and where it comes from.
    """
    spec = asked.spec.model_dump(mode="json")
    return records.create(job_id, StoredSpec(spec=spec, origin=asked.origin, asked=asked.asked))


def read_submitted(records: RecordStore, job_id: str) -> Submitted:
    """Return what was asked, with what the user wrote for it and where it comes from.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: This version does not know what was asked.
    """
    stored = records.stored_spec(job_id)
    return Submitted(stored_submission(stored.spec), stored.asked, stored.origin)


def read_submission(records: RecordStore, job_id: str) -> Job | GroupJob:
    """Return what was asked, of any kind.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: This version does not know what was asked.
    """
    return read_submitted(records, job_id).spec


def read_spec(records: RecordStore, job_id: str) -> Job:
    """Return what was asked of a job with processes of its own, with the images that it reads.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: It is a group.
    """
    return settled(records.store, job_id, job_of(read_submission(records, job_id), job_id))
