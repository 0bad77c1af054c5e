"""Finds the checkpoint that a sample job draws from, or says what it waits for."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import BadInputError, CheckpointError, JobNotFoundError
from orchestrator.job_lookup import find_job_id
from orchestrator.records import RecordStore
from orchestrator.registry import registered_checkpoint
from orchestrator.sample_model import resolve_model
from orchestrator.spec import ModelRef
from orchestrator.storage import ObjectStore


@dataclass(frozen=True)
class ModelResolution:
    """A checkpoint, or what has to happen before there is one.

    Attributes:
        model: The fields of `ResolvedModel`, once it is found.
        waits_for: What is waited for; None once it is found.
        waits_for_job: The id of the job that has to end first, if it is one.
    """

    model: dict[str, Any] = field(default_factory=dict)
    waits_for: str | None = None
    waits_for_job: str | None = None


def find_model(store: ObjectStore, ref: ModelRef) -> ModelResolution:
    """Return the checkpoint that `ref` means now, or what it waits for.

    Raises:
        BadInputError: There is no such job, or it ended without a checkpoint.
        TrackingError: MLflow was needed and does not answer.
    """
    try:
        if ref.job is not None:
            job_id = find_job_id(store, ref.job)
            record = RecordStore(store).read(job_id).record
            if record.kind != "train":
                raise BadInputError(f"model.job: {job_id} is a {record.kind} job, not a training")
            if not record.state.has_ended:
                return ModelResolution(waits_for=f"the end of job {job_id}", waits_for_job=job_id)
        return ModelResolution(resolve_model(store, ref, registered_checkpoint))
    except (JobNotFoundError, CheckpointError) as error:
        raise BadInputError(f"model: {error}") from error
