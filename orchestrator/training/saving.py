"""Saves the states of a training in the background."""

from pathlib import Path
from typing import Self

from ddpm.training.checkpoint import StateSnapshot
from ddpm.training.loop import TrainState
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import CheckpointCommit
from orchestrator.artifacts.checkpoints.mlflow_files import write_mlflow_files
from orchestrator.artifacts.checkpoints.own_code import package_of
from orchestrator.artifacts.checkpoints.saver import BackgroundSaver
from orchestrator.attempts.attempt import Attempt
from orchestrator.jobs.curve import is_settled
from orchestrator.jobs.decisions import Decisions
from orchestrator.lifecycle.curves import is_evaluated
from orchestrator.specs.on_the_way import evaluation_at
from orchestrator.specs.train import TrainJob
from orchestrator.tracking.writer import MetricWriter
from orchestrator.training.board import BoardClient


class StateSaver:
    """Commits states as checkpoints; with what they are registered by, where they may be.

    Args:
        attempt: The attempt that saves.
        spec: What it does.
        checkpoints: The job's.
        board: Shown what is committed.
        metrics: Flushed before each commit: what a checkpoint follows is not lost with its attempt.
    """

    def __init__(
        self,
        attempt: Attempt,
        spec: TrainJob,
        checkpoints: CheckpointStore,
        board: BoardClient,
        metrics: MetricWriter,
    ) -> None:
        self._attempt = attempt
        self._spec = spec
        self._checkpoints = checkpoints
        self._board = board
        self._metrics = metrics
        self._step = 0  # of the checkpoint that is being written
        self._saver = BackgroundSaver(
            checkpoints,
            attempt.number,
            before_commit=self._before_commit,
            after_commit=self._after_commit,
        )

    def __enter__(self) -> Self:
        self._saver.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._saver.__exit__(kind, *rest)

    def save(self, state: TrainState, decided: Decisions) -> None:
        """Take a copy of a state, and write and commit it in the background.

        Args:
            state: As it stands after a step.
            decided: What holds for all attempts of the job.
        """
        snapshot = StateSnapshot.take(state, decided.values)
        step, is_last = state.step, state.step >= self._spec.training.num_steps
        may_be_best = self._is_evaluated(step) and self._spec.checkpoints.keep_best is not None

        def write(folder: Path) -> None:
            self._step = step
            snapshot.write(folder)
            if is_last or may_be_best:  # that which is registered
                write_mlflow_files(folder, state.model.image_shape, package_of(decided.values))

        self._saver.submit(step, write, {"decisions": decided.values})

    def _is_evaluated(self, step: int) -> bool:
        """Return whether samples of the checkpoint of a step will be compared with real images."""
        metrics = self._spec.evaluation.metrics
        total = self._spec.training.num_steps
        return metrics is not None and is_evaluated(step, metrics.every_steps, total)

    def _before_commit(self) -> None:
        self._metrics.flush()
        if self._is_evaluated(self._step):
            # However long the orchestrator takes to see it, the checkpoint is there to be drawn
            # from: what evaluates it lets go of it. An attempt may come by a step again whose
            # evaluation has ended: nobody would let go of it then.
            job_id = self._attempt.record.job_id
            at = evaluation_at(job_id, self._spec.name, self._step)
            self._checkpoints.refer(at.step, at.sample_id)
            if is_settled(
                self._attempt.store,
                job_id,
                at.step,
                sample_id=at.sample_id,
                evaluate_id=at.evaluate_id,
            ):
                self._checkpoints.let_go(at.step, at.sample_id)

    def _after_commit(self, commit: CheckpointCommit) -> None:
        self._board.say(committed=commit.step)
        self._checkpoints.retain(self._spec.checkpoints.keep)
