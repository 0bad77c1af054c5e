"""What a training takes over from another one: its weights, or all of it."""

from ddpm.compute import ComputeDecision
from ddpm.errors import CheckpointFormatError
from ddpm.training.checkpoint import load_state
from ddpm.training.checkpoint_info import read_info
from ddpm.training.initial import start_from
from ddpm.training.loop import TrainState
from orchestrator.artifacts.checkpoints.resolve import fetch_model
from orchestrator.attempts.attempt import Attempt
from orchestrator.counts import counted
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.lifecycle.state import Placement
from orchestrator.specs.extension import ALL, obstacles
from orchestrator.specs.train import TrainJob
from orchestrator.training.decisions import FIXED_TRAINING, HAS_TRAINED

_OF_THE_ATTEMPT = frozenset({"format_version", "attempt", HAS_TRAINED})


class Inheritance:
    """The checkpoint that a training begins with, as its attempt knows it.

    Args:
        attempt: Of a training whose record names a model.
        spec: What was asked.
        model: The checkpoint that its record names.
    """

    def __init__(self, attempt: Attempt, spec: TrainJob, model: ResolvedModel) -> None:
        self._attempt = attempt
        self._spec = spec
        self._model = model

    @property
    def is_whole(self) -> bool:
        """Whether the training goes on where the other one ended."""
        return self._model.weights == ALL

    def decisions(self, num_workers: int, placement: Placement) -> dict[str, object]:
        """Return what was decided for the other training, which holds for this one as well.

        Raises:
            BadInputError: This one cannot honour it.
        """
        try:
            old = read_spec(RecordStore(self._attempt.store), self._model.job_id)
        except JobNotFoundError as error:
            raise BadInputError(f"init: {error}") from error
        if not isinstance(old, TrainJob):
            raise BadInputError(f"init.job: {self._model.job_id} is no training")
        for _, obstacle in obstacles(old, self._spec, self._model.step):
            raise BadInputError(f"init: cannot go on from {self._model.job_id}: {obstacle}")
        folder = fetch_model(self._attempt.store, self._model).folder
        decided = read_info(folder).fixed
        fixed = FIXED_TRAINING.of(decided)
        kind = ComputeDecision.from_json(fixed.compute).device_kind
        if kind != ("cuda" if placement.gpus_per_worker else "cpu"):
            raise BadInputError(
                f"init: {self._model.job_id} computed on {kind}; ask for the same resources"
            )
        had = fixed.num_workers or 0
        if had != num_workers:
            raise BadInputError(
                f"init: {self._model.job_id} had {counted(had, 'worker')}, not {num_workers}"
            )
        taken = {key: value for key, value in decided.items() if key not in _OF_THE_ATTEMPT}
        return {**taken, HAS_TRAINED: True}

    def give(self, state: TrainState) -> str:
        """Fill a state that took no step, and say in a line what it got.

        Raises:
            BadInputError: The checkpoint does not fit.
        """
        model = self._model
        folder = fetch_model(self._attempt.store, model).folder
        try:
            if self.is_whole:
                load_state(state, folder)
            else:
                start_from(state, folder, weights=model.weights)
        except CheckpointFormatError as error:
            raise BadInputError(f"init: {model.commit_key} {error.problem}") from error
        how = "goes on from" if self.is_whole else "starts from"
        return f"{how} step {model.step} of {model.job_id}"
