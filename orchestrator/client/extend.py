"""Makes the job that goes on where a training ended."""

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submitted
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.specs.again import job_file_again
from orchestrator.specs.extension import ALL, obstacles
from orchestrator.specs.files import JobFile
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


def extension(store: ObjectStore, job_id: str, num_steps: int) -> JobFile:
    """Return the job file of a training that goes on from the last checkpoint of another one.

    It takes the same steps as one run of so many would have, to the bit.

    Args:
        store: Where the jobs are.
        job_id: A training that has SUCCEEDED.
        num_steps: Steps in all, those that are taken included.

    Raises:
        BadInputError: There is nothing to go on from, or it would be another run.
    """
    records = RecordStore(store)
    record, submitted = records.read(job_id).record, read_submitted(records, job_id)
    old = submitted.spec
    if not isinstance(old, TrainJob):
        raise BadInputError(f"{job_id} is a {record.kind} job; only a training can be extended")
    _check_state(record)
    taken = old.training.num_steps
    if CheckpointStore(store, JobPaths(job_id)).find(taken) is None:
        raise BadInputError(f"{job_id} has no checkpoint of its last step {taken} any more")
    settings = [
        f"training.num_steps={num_steps}",
        f"init={{job: {job_id}, step: {taken}, weights: {ALL}}}",
        *_same_resources(record),
    ]
    file = job_file_again(submitted, job_id, settings)
    if isinstance(file.spec, TrainJob):
        for _, obstacle in obstacles(old, file.spec, taken):
            raise BadInputError(f"{job_id} cannot be extended: {obstacle}")
    return file


def _check_state(record: JobRecord) -> None:
    job_id, state = record.job_id, record.state
    if not state.has_ended:
        raise BadInputError(f"{job_id} is {state}; extend it when it has SUCCEEDED")
    if state is not JobState.SUCCEEDED:
        raise BadInputError(
            f"{job_id} is {state}, before its last step; let it go on: ddpmctl retry {job_id}"
        )


def _same_resources(record: JobRecord) -> list[str]:
    """Return what "auto" came to: where it computes changes bits, so it stays."""
    found = record.resources
    if found is None:
        return []
    return [
        f"resources.cpus_per_worker={found.cpus_per_worker}",
        f"resources.gpus_per_worker={found.gpus_per_worker:g}",
    ]
