"""Finds the checkpoint that a sample job draws from, or says what it waits for."""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.errors import (
    BadInputError,
    CheckpointError,
    JobNotFoundError,
    LocalFolderError,
    StoreUnavailableError,
    TrackingError,
)
from orchestrator.jobs.lookup import exact_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.kinds import Output, leaves
from orchestrator.specs.sections import ModelRef
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking.registry import registered_checkpoint

ASK_AGAIN_AFTER = timedelta(seconds=15)
_FORGET_AFTER = timedelta(seconds=30)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelResolution:
    """A checkpoint, or what has to happen before there is one.

    Attributes:
        model: The checkpoint; None until it is found.
        waits_for: What is waited for; None once it is found.
        waits_for_job: The id of the job that has to end first, if it is one.
    """

    model: ResolvedModel | None = None
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
            job_id = exact_job_id(store, ref.job)
            record = RecordStore(store).read(job_id).record
            if not leaves(record.kind, Output.CHECKPOINTS):
                raise BadInputError(f"model.job: {job_id} is a {record.kind} job, not a training")
            if not record.state.has_ended:
                return ModelResolution(waits_for=f"the end of job {job_id}", waits_for_job=job_id)
        return ModelResolution(resolve_model(store, ref, registered_checkpoint))
    except StoreUnavailableError as error:  # perhaps another store, which must not hold up all jobs
        return ModelResolution(waits_for=f"the store of its checkpoint: {error}")
    except (JobNotFoundError, CheckpointError) as error:
        raise BadInputError(f"model: {error}") from error


@dataclass(frozen=True)
class _Search:
    """A look for a model, and when somebody asked for it last."""

    future: Future[ModelResolution]
    asked_at: datetime


class _Memo:
    """What is answered without a look until a time comes."""

    def __init__(self) -> None:
        self._answers: dict[ModelRef | None, tuple[ModelResolution, datetime]] = {}

    def get(self, ref: ModelRef | None, now: datetime) -> ModelResolution | None:
        """Return what is said of a model now; None if it has to be looked for."""
        answer, until = self._answers.get(ref, (None, now))
        if answer is not None and now >= until:
            del self._answers[ref]
            return None
        return answer

    def keep(
        self, ref: ModelRef | None, answer: ModelResolution, until: datetime
    ) -> ModelResolution:
        """Say this until then, and return it."""
        self._answers[ref] = (answer, until)
        return answer


_ALL_REGISTERED = None  # what is said of each model that MLflow has to be asked for


class ModelFinder:
    """Finds models for the orchestrator's loop, which must not wait for long.

    An MLflow may be down, and a checkpoint is proven whole by downloading it.

    Args:
        store: Where the jobs are.
        find: Finds one.
        patience_s: How long a call waits for that.
        pool: Where it is found meanwhile; None for one thread.
    """

    def __init__(
        self,
        store: ObjectStore,
        find: Callable[[ObjectStore, ModelRef], ModelResolution] = find_model,
        patience_s: float = 1.0,
        pool: Executor | None = None,
    ) -> None:
        self._store = store
        self._find = find
        self._patience_s = patience_s
        self._pool = pool or ThreadPoolExecutor(1, "models")
        self._sought: dict[ModelRef, _Search] = {}
        self._memo = _Memo()

    def find(self, ref: ModelRef, now: datetime) -> ModelResolution:
        """Return the checkpoint that `ref` means now, or what it waits for: MLflow, if need be.

        Args:
            ref: What a job file says.
            now: By the store's clock, like all times here.

        Raises:
            BadInputError: There is no such job, or it ended without a checkpoint.
        """
        answer = self._memo.get(ref, now)
        if answer is None and ref.registered is not None:
            answer = self._memo.get(_ALL_REGISTERED, now)
        if answer is not None:
            return answer
        try:
            return self._found(ref, now)
        except TimeoutError:
            return ModelResolution(waits_for="its checkpoint, which is being read")
        except TrackingError as error:
            logger.warning("models wait: %s", error)
            waiting = ModelResolution(waits_for="MLflow, which does not answer")
            return self._memo.keep(_ALL_REGISTERED, waiting, now + ASK_AGAIN_AFTER)
        except (OSError, LocalFolderError) as error:  # a full disk, a cache that is somebody else's
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            waiting = ModelResolution(waits_for=f"its checkpoint, which cannot be read: {why}")
            return self._memo.keep(ref, waiting, now + ASK_AGAIN_AFTER)

    def _found(self, ref: ModelRef, now: datetime) -> ModelResolution:
        # What was found for a job that is gone says nothing of a later time.
        self._sought = {
            other: search
            for other, search in self._sought.items()
            if not search.future.done() or now - search.asked_at <= _FORGET_AFTER
        }
        known = self._sought.get(ref)
        future = known.future if known else self._pool.submit(self._find, self._store, ref)
        self._sought[ref] = _Search(future, now)
        # Once a reference: many jobs may wait for the same one.
        error = future.exception(0 if known else self._patience_s)
        del self._sought[ref]
        if error is not None:
            raise error
        return future.result()
