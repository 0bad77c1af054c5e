"""Drivers that work in simulated seconds and keep the protocol of real ones.

They are the product's `Attempt` with a loop of their own around it: a training commits every third
step, a fleet one shard a second.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TypeVar

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.running import must_stop
from orchestrator.errors import (
    AttemptSupersededError,
    ConditionFailedError,
    JobNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from orchestrator.jobs.processes import REGISTERED_PROCESS, RegisteredProcess
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import Reason
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.lines import MetricsLine, encode_line, segments
from tests.nemesis.doubles.actors import Actor, Chance
from tests.nemesis.doubles.cluster import Process, SimulatedCluster
from tests.nemesis.doubles.store import View

BEAT_EVERY_S = 3
SAVE_EVERY = 3
DIVERGES_AT = 5
WAITS_FOR_RAY_S = 10

_T = TypeVar("_T")
Script = Generator[None, None, _T]


class Driver(Actor):
    """The driver of one attempt and its workers.

    Args:
        view: The store as it sees it.
        cluster: Where its workers run.
        process: Its own process.
        draw: Chance.
        diverges: Whether its loss stops being finite.

    Attributes:
        done: Units that it has done, or found done.
        began_at: Units that it found committed; None before it looked.
    """

    def __init__(
        self,
        view: View,
        cluster: SimulatedCluster,
        process: Process,
        draw: Chance,
        *,
        diverges: bool,
    ) -> None:
        super().__init__(view)
        self.process = process
        self.done = 0
        self.began_at: int | None = None
        self._cluster, self._draw, self._diverges = cluster, draw, diverges
        self._workers: list[Process] = []
        self._script = self._life()
        self._beats_in = 0
        self._attempt: Attempt | None = None

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process.is_alive and not self.view.is_dead

    def act(self, now: datetime) -> None:
        """Go on with its life."""
        self._beat()
        try:
            next(self._script)
        except StopIteration:
            self._cluster.end(self.process, self._ray_says)
        if not self.process.is_alive:
            self.view.is_dead = True

    def died(self) -> None:
        """End the process too, if the store killed it."""
        self._cluster.end(self.process)

    def _life(self) -> Script[None]:
        self._ray_says = DriverStatus.FAILED
        try:
            yield from self._opened()
            yield from _surely(lambda: self._register(self.process))
            attempt = yield from self._opened()
        except (AttemptSupersededError, JobNotFoundError):
            return
        self._attempt = attempt
        self.process.works = True
        outcome = yield from self._work(attempt)
        for worker in self._workers:
            self._cluster.end(worker)
        yield from _surely(attempt.beat)
        yield from _surely(lambda: attempt.put_outcome(outcome))
        if outcome.succeeded:
            self._ray_says = DriverStatus.SUCCEEDED
        for _ in range(WAITS_FOR_RAY_S if outcome.stopped else self._draw(3)):
            yield

    def _opened(self) -> Script[Attempt]:
        ref = self.process
        return (yield from _surely(lambda: Attempt.open(self.view, ref.job_id, ref.attempt)))

    def _work(self, attempt: Attempt) -> Script[Outcome]:
        yield from self._start_workers(attempt)
        self.done = self.began_at = yield from _surely(lambda: self._committed(attempt))
        progress = attempt.progress
        progress.phase, progress.done, progress.committed = Phase.RUNNING, self.done, self.done
        while self.done < progress.total:
            yield
            if attempt.origin.is_smoke:
                break
            if not all(worker.is_alive for worker in self._workers):
                return Outcome(
                    reason=Reason.WORKER_LOST, message="a worker died", progress=progress.committed
                )
            if attempt.stop.is_set():
                yield from self._commit(attempt)
                return Outcome(stopped=True, progress=self.done)
            if self._diverges and self.done >= DIVERGES_AT:
                return Outcome(reason=Reason.DIVERGED, message="the loss is NaN")
            yield from self._one_unit(attempt)
        return Outcome(succeeded=True, progress=self.done)

    def _start_workers(self, attempt: Attempt) -> Script[None]:
        placement = attempt.record.placement
        assert placement is not None
        nodes = [node for node, count in placement.workers_by_node.items() for _ in range(count)]
        for rank, node_id in enumerate(nodes):
            job_id, number = self.process.job_id, self.process.attempt
            worker = self._cluster.process(job_id, number, f"worker-{rank}", node_id)
            worker.works = True
            self._workers.append(worker)
            if node_id not in self._cluster.node_ids:
                self._cluster.end(worker)
            yield from _surely(partial(self._register, worker))

    def _register(self, process: Process) -> None:
        folder = JobPaths(process.job_id).attempt(process.attempt).processes
        registered = RegisteredProcess(**vars(process.ref))
        key = f"{folder}{process.ref.role}-{process.ref.pid}.json"
        self.view.put(key, REGISTERED_PROCESS.encode(registered))

    def _committed(self, attempt: Attempt) -> int:
        if isinstance(attempt.spec, TrainJob):
            return max(CheckpointStore(self.view, attempt.job_paths).steps(), default=0)
        return 0

    def _one_unit(self, attempt: Attempt) -> Script[None]:
        if not isinstance(attempt.spec, TrainJob):
            yield from self._one_shard(attempt)
            return
        self.done += 1
        attempt.progress.done = self.done
        line = MetricsLine(
            at_ms=int(self.view.now().timestamp() * 1000),
            step=self.done,
            values={"loss": 1 / self.done},
        )
        stream, body = segments(self.view, attempt.paths), encode_line(line) + b"\n"
        number = yield from _surely(stream.newest)
        yield from _surely(lambda: stream.put(number + 1, body))
        if self.done % SAVE_EVERY == 0 or self.done == attempt.progress.total:
            yield from self._commit(attempt)

    def _one_shard(self, attempt: Attempt) -> Script[None]:
        size, total = attempt.spec.shard_size, attempt.progress.total  # type: ignore[attr-defined]
        shards = range(-(-total // size))
        there = yield from _surely(
            lambda: set(SampleShards(self.view, attempt.job_paths).indices())
        )
        missing = [index for index in shards if index not in there]
        if missing:
            index = missing[self._draw(len(missing))]
            yield from self._put_once(attempt.job_paths.shard(index))
            there.add(index)
        self.done = min(total, size * len(there))
        if len(there) == len(shards):
            yield from self._put_once(attempt.job_paths.manifest)
        attempt.progress.done = attempt.progress.committed = self.done

    def _commit(self, attempt: Attempt) -> Script[None]:
        if isinstance(attempt.spec, TrainJob) and self.done:
            yield from self._put_once(attempt.job_paths.checkpoint(self.done))
            attempt.progress.committed = self.done

    def _put_once(self, key: str) -> Script[None]:
        def put() -> None:
            with suppress(ConditionFailedError):  # another attempt's, of the same bits
                self.view.put(key, b"{}", if_absent=True)

        yield from _surely(put)

    def _beat(self) -> None:
        """Do what the thread of a real driver does: beat, and hear of a stop."""
        if self._attempt is None or not self.process.works:
            return
        self._beats_in -= 1
        try:
            if self._beats_in < 0:
                self._attempt.beat()
                self._beats_in = BEAT_EVERY_S
            if not self._attempt.stop.is_set() and must_stop(self._attempt):
                self._attempt.stop.set()
        except StoreError:
            return


def _surely(act: Callable[[], _T]) -> Script[_T]:
    """Do something, second after second, until the store does not fail it."""
    while True:
        try:
            return act()
        except StoreUnavailableError:
            yield
