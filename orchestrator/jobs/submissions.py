"""What was asked of a job: put into the store with its marks, and read back as what it means.

Apart from `records`, since building the models of what a job file may say takes longer than most
verbs do.
"""

import json
from collections.abc import Mapping

from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import ASKED_KEY
from orchestrator.specs.asked import Asked, Request
from orchestrator.specs.group import GroupJob, job_of, submission_from_json
from orchestrator.specs.job import Job


def create_job(
    records: RecordStore,
    job_id: str,
    spec: Job | GroupJob,
    parent: Mapping[str, str] | None = None,
    asked: Asked | None = None,
) -> bool:
    """Put a new job; false if there is a job of that id.

    Args:
        records: Where it goes.
        job_id: Its id.
        spec: What is asked.
        parent: The group that it belongs to: its `job_id`, and the `step` that this one is.
        asked: What the user wrote, if it was one.
    """
    value = spec.model_dump(mode="json")
    if asked is not None:
        value[ASKED_KEY] = asked.as_json()
    return records.create(job_id, value, parent)


def read_request(records: RecordStore, job_id: str) -> Request:
    """Return what was asked, with what the user wrote for it.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: This version does not know what was asked.
    """
    body = records.spec_body(job_id)
    asked = Asked.from_json(json.loads(body).get(ASKED_KEY))
    return Request(submission_from_json(body), asked)


def read_submission(records: RecordStore, job_id: str) -> Job | GroupJob:
    """Return what was asked, of any kind.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: This version does not know what was asked.
    """
    return submission_from_json(records.spec_body(job_id))


def read_spec(records: RecordStore, job_id: str) -> Job:
    """Return what was asked of a job with processes of its own.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: It is a group.
    """
    return job_of(read_submission(records, job_id), job_id)
