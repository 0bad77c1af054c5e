"""Finds the checkpoint that a sample job draws from, or says what it waits for."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.errors import BadInputError, CheckpointError, JobNotFoundError, TrackingError
from orchestrator.job_lookup import find_job_id
from orchestrator.records import RecordStore
from orchestrator.registry import registered_checkpoint
from orchestrator.sample_model import resolve_model
from orchestrator.spec import ModelRef
from orchestrator.storage import ObjectStore

ASK_MLFLOW_AGAIN_AFTER = timedelta(seconds=15)

logger = logging.getLogger(__name__)


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


class ModelFinder:
    """Finds models for the orchestrator's loop, which must not wait for an MLflow that is down.

    Args:
        store: Where the jobs are.
        find: Finds one.
    """

    def __init__(
        self,
        store: ObjectStore,
        find: Callable[[ObjectStore, ModelRef], ModelResolution] = find_model,
    ) -> None:
        self._store = store
        self._find = find
        self._ask_again_at = datetime.min.replace(tzinfo=UTC)

    def find(self, ref: ModelRef, now: datetime) -> ModelResolution:
        """Return the checkpoint that `ref` means now, or what it waits for: MLflow, if need be.

        Raises:
            BadInputError: There is no such job, or it ended without a checkpoint.
        """
        waiting = ModelResolution(waits_for="MLflow, which does not answer")
        if ref.registered is not None and now < self._ask_again_at:
            return waiting
        try:
            return self._find(self._store, ref)
        except TrackingError as error:
            logger.warning("models wait: %s", error)
            self._ask_again_at = now + ASK_MLFLOW_AGAIN_AFTER
            return waiting
