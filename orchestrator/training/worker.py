"""What each worker of a training runs: the loop of `ddpm.training.loop`, and a shell around it.

The mathematics yields numbers; this shell logs them, saves checkpoints in the background, draws
sample grids, and stops when it is told to.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from ddpm.bits import BITS_VERSION, bits_version_of
from ddpm.compute import ComputeDecision
from ddpm.training.checkpoint import load_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import StepMetrics, TrainState, train_steps
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.own_code import (
    network_change,
)
from orchestrator.artifacts.datasets.refs import DatasetRef, describe
from orchestrator.attempts.address import AttemptAddress
from orchestrator.attempts.attempt import Attempt, register_process
from orchestrator.attempts.compute import set_up_process
from orchestrator.attempts.log_shipper import LogShipper
from orchestrator.cluster.cache import cache_folder
from orchestrator.jobs.decisions import Decisions
from orchestrator.lifecycle.phase import Phase
from orchestrator.specs.train import TrainJob
from orchestrator.store.s3_store import open_store
from orchestrator.tracking.system import SystemMetrics
from orchestrator.tracking.writer import MetricWriter
from orchestrator.training.board import BoardClient, SendReport
from orchestrator.training.decisions import FIXED_TRAINING, TrainingDecisions
from orchestrator.training.images import opened_images
from orchestrator.training.inheritance import Inheritance
from orchestrator.training.proposal import placement_of, proposal
from orchestrator.training.report import final_report, log_samples
from orchestrator.training.run_description import describe_run
from orchestrator.training.saving import StateSaver
from orchestrator.training.smoke import smoke_training
from orchestrator.training.window import Window

logger = logging.getLogger(__name__)

_TELL_LOSS_EVERY_S = 10.0


def train_loop(address: AttemptAddress, send: SendReport, *, rank: int, world_size: int) -> None:
    """Train from the newest whole checkpoint to the end, or until told to stop.

    Args:
        address: Of the attempt.
        send: How it tells its driver where it is, and learns that it is to stop.
        rank: Of this worker.
        world_size: All workers.
    """
    import ray

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    store = open_store(address.store_uri)
    attempt = Attempt.open(store, address.job_id, address.attempt)
    node_id = ray.get_runtime_context().get_node_id()
    register_process(store, attempt.paths, f"worker-{rank}", node_id)
    with (
        LogShipper(store, attempt.paths, "worker", rank),
        BoardClient(send, rank) as board,
    ):
        board.say(phase=Phase.STARTING, node_id=node_id)
        TrainingWorker(attempt, rank, world_size, board).run()


class TrainingWorker:
    """One rank of a training.

    Args:
        attempt: What it works for.
        rank: 0 saves, logs and draws.
        world_size: All ranks.
        board: To report to.
    """

    def __init__(self, attempt: Attempt, rank: int, world_size: int, board: BoardClient) -> None:
        if not isinstance(attempt.spec, TrainJob):
            raise TypeError(f"job {attempt.record.job_id} is no training")
        self._attempt = attempt
        self._spec = attempt.spec
        self._rank = rank
        self._world_size = world_size
        self._board = board
        self._scores: dict[str, float] = {}
        self._told_at = 0.0
        self._checkpoints = CheckpointStore(attempt.store, attempt.job_paths)
        model = attempt.record.model
        self._inheritance = Inheritance(attempt, attempt.spec, model) if model else None
        self._decisions = TrainingDecisions(attempt, attempt.spec.training, world_size)

    def run(self) -> None:
        """Train, and report at the end."""
        dataset = describe(self._attempt.store, self._spec.dataset.sha256 or "")
        decided = self._decided(dataset)
        window = FIXED_TRAINING.of(decided.values).shuffle_window
        with opened_images(self._attempt.store, dataset, window) as images:
            self._train(dataset, images, decided)

    def _train(
        self,
        dataset: DatasetRef,
        images: ImageDataset,
        decided: Decisions,
    ) -> None:
        fixed = FIXED_TRAINING.of(decided.values)
        compute = ComputeDecision.from_json(fixed.compute)
        train_set, holdout = images.split(self._spec.dataset.holdout_fraction)
        set_up_process(compute)
        state = TrainState(
            unet_config=self._spec.model.for_classes(dataset.num_classes),
            diffusion_config=self._spec.diffusion,
            config=self._decisions.config(fixed),
            image_shape=train_set.image_shape,
            compute=compute,
        )
        self._restore(state)
        if state.step < self._spec.training.num_steps:
            self._board.say(phase=Phase.SMOKE)
            smoke_training(self._attempt, state, train_set, decided, self._rank)
            if self._rank == 0:
                self._decisions.confirm()
        if self._attempt.origin.is_smoke:
            return
        if self._rank > 0:
            for _ in self._steps(state, train_set):
                pass
            return
        with ExitStack() as resources:
            metrics = resources.enter_context(
                MetricWriter(self._attempt.store, self._attempt.paths)
            )
            resources.enter_context(SystemMetrics(metrics.log_system))
            describe_run(self._attempt, self._spec, metrics, dataset, compute, self._world_size)
            self._lead(state, train_set, metrics, decided)
            if state.step >= self._spec.training.num_steps:
                self._board.say(phase=Phase.EVALUATING)
                state.release()
                self._say_scores(final_report(self._attempt, self._spec, state, holdout, metrics))

    def _decided(self, dataset: DatasetRef) -> Decisions:
        """Decide what changes bits, or take over what an earlier attempt decided."""
        if self._inheritance is not None and self._inheritance.is_whole:
            placement = placement_of(self._attempt)
            return self._fixed(self._inheritance.decisions(self._world_size, placement))
        size = self._decisions.proposed_size
        return self._fixed(proposal(self._attempt, self._spec, dataset, size, self._world_size))

    def _fixed(self, proposed: Mapping[str, object]) -> Decisions:
        """Return what holds: this proposal, or that of an earlier attempt which took a step."""
        decided = self._decisions.fix(proposed)
        fixed = FIXED_TRAINING.of(decided.values)
        if self._rank == 0 and (remark := self._decisions.remark(fixed)):
            self._attempt.tell(remark)
        if self._rank == 0 and bits_version_of(vars(fixed)) != BITS_VERSION:
            self._attempt.tell(
                "the first attempt ran code that computes other bits "
                f"({fixed.code_sha256[:12]}); what follows is not what it would have computed"
            )
        if self._rank == 0 and (change := network_change(decided.values, self._spec.model)):
            self._attempt.tell(f"the first attempt computed with {change}: bits may differ")
        return decided

    def _restore(self, state: TrainState) -> None:
        """Load the newest whole checkpoint; all ranks load the one that the first rank found."""
        step = 0
        cache = cache_folder("checkpoints")
        if self._rank == 0:
            found = self._checkpoints.newest_whole(cache, self._tell_skipped)
            step = found.commit.step if found else 0
        step = _from_first_rank(step, self._world_size)
        commit = self._checkpoints.find(step) if step else None
        if commit is not None:
            load_state(state, self._checkpoints.fetch(commit, cache).folder)
        elif self._inheritance is not None:
            remark = self._inheritance.give(state)
            if self._rank == 0:
                self._attempt.tell(remark)
        if self._rank == 0 and self._attempt.number > 1:
            self._attempt.tell(f"goes on from step {state.step}")

    def _tell_skipped(self, step: int, problem: str) -> None:
        self._attempt.tell(f"the checkpoint of step {step} is passed over: {problem}")

    def _steps(self, state: TrainState, train_set: ImageDataset) -> Iterator[StepMetrics]:
        """Yield all steps that are left, pausing where a checkpoint or a grid is due.

        At a pause `state` stands exactly after the step yielded last. Only `train_steps` looks for
        a request to stop: there the ranks agree on it, while each may see it at another time.
        """
        num_steps = self._spec.training.num_steps
        self._board.say(phase=Phase.RUNNING, total=num_steps, done=state.step, committed=state.step)
        while state.step < num_steps:
            until = self._next_pause(state.step)
            stop = self._board.stop_requested
            yield from train_steps(state, train_set, until_step=until, stop_requested=stop)
            if state.step < until:
                return

    def _next_pause(self, step: int) -> int:
        tracking = self._spec.tracking
        intervals = [self._spec.checkpoints.every_steps, tracking.sample_every_steps]
        pauses = [(step // every + 1) * every for every in intervals if every]
        return min([*pauses, self._spec.training.num_steps])

    def _lead(
        self,
        state: TrainState,
        train_set: ImageDataset,
        metrics: MetricWriter,
        decided: Decisions,
    ) -> None:
        saver = StateSaver(self._attempt, self._spec, self._checkpoints, self._board, metrics)
        window = Window(self._spec.training.global_batch_size)
        with saver:
            saved = state.step
            for measured in self._steps(state, train_set):
                window.add(measured)
                self._board.say(done=measured.step, **window.pace())
                if measured.step % self._spec.tracking.log_every_steps == 0:
                    values = window.take()
                    metrics.log(measured.step, values)
                    self._say_scores({"loss": values["loss"]})
                    self._tell_loss(measured)
                if self._is_due(measured.step, self._spec.checkpoints.every_steps, state):
                    saver.save(state, decided)
                    saved = state.step
                if self._is_due(measured.step, self._spec.tracking.sample_every_steps, state):
                    log_samples(self._spec, state, metrics)
            if state.step > saved:
                self._board.say(phase=Phase.SAVING)
                saver.save(state, decided)

    def _say_scores(self, scores: Mapping[str, float]) -> None:
        self._scores |= scores
        self._board.say(scores=dict(self._scores))

    def _tell_loss(self, measured: StepMetrics) -> None:
        """Tell whoever follows the log, a few times a minute."""
        now, is_last = time.monotonic(), measured.step >= self._spec.training.num_steps
        if is_last or now - self._told_at >= _TELL_LOSS_EVERY_S:
            self._told_at = now
            logger.info("step %d: loss %.4f", measured.step, measured.loss)

    @staticmethod
    def _is_due(step: int, every_steps: int, state: TrainState) -> bool:
        """Tell whether something is due now: the state stands at the step only at a pause."""
        return bool(every_steps) and step % every_steps == 0 and state.step == step


def _from_first_rank(value: int, world_size: int) -> int:
    """Return rank 0's value on every rank."""
    if world_size == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
