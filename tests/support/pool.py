"""A pool of threads and work that draw nothing, for tests of the fleet."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Self

from orchestrator.fleet.actor import Hello, Orders, WorkerActor, WorkerReport
from orchestrator.fleet.fleet import Fleet, FleetHooks
from orchestrator.fleet.table import ShardTable
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.fleet.workers import PoolWorker
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import plan_shards
from orchestrator.sampling.drawing import UnfinishedShard
from orchestrator.sampling.worker import Result


@dataclass
class Desk:
    """What the workers of one test share: what was drawn, and what is to go wrong."""

    drawn: list[tuple[str, int]] = field(default_factory=list)
    partials: list[tuple[int, str]] = field(default_factory=list)
    begun: list[Decisions] = field(default_factory=list)
    before_drawing: Callable[[str, ShardTask, Watch], None] = lambda worker, task, watch: None
    drawing: dict[str, int] = field(default_factory=dict)
    committed: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, worker: str, decisions: Decisions | None) -> "FakeWork":
        """Return what a worker works with."""
        return FakeWork(self, worker, proposal_of(worker, decisions))


def proposal_of(worker: str, decisions: Decisions | None) -> Decisions:
    """Propose the worker's own name, if nothing is decided."""
    return Decisions() if decisions else Decisions({"decided_by": worker})


@dataclass
class FakeWork:
    """Draws nothing, at once."""

    desk: Desk
    worker: str
    proposal: Decisions
    remarks: Sequence[str] = ()

    def begin(self, decisions: Decisions) -> Self:
        """Remember what was decided."""
        self.desk.begun.append(decisions)
        return self

    def compute(self, task: ShardTask, watch: Watch) -> Result:
        """Do what the test wants, then return a shard as it was begun."""
        self.desk.before_drawing(self.worker, task, watch)
        return None if watch.is_dropped(task.shard.index) else UnfinishedShard(shard=task.shard)

    def keep(self, task: ShardTask, result: Result) -> ShardEvent:
        """Commit in memory, unless the drawing was stopped on its way."""
        index = task.shard.index
        if result is None:
            return ShardEvent(index=index, kind="dropped")
        assert isinstance(result, UnfinishedShard)
        if result.seconds < 0:
            return ShardEvent(index=index, kind="halved", partial=f"partial-{index}")
        with self.desk.lock:
            self.desk.drawn.append((self.worker, index))
            self.desk.partials.append((index, task.partial))
            is_own = index not in self.desk.committed
            self.desk.committed.add(index)
        return ShardEvent(index=index, kind="committed", is_own=is_own)


class ThreadPool:
    """A pool whose workers are threads of this process; a test may declare one dead."""

    place_within_s = 2.0
    num_unplaced = 0

    def __init__(self, desk: Desk, max_workers: int) -> None:
        self.workers: list[PoolWorker] = []
        self.max_workers = max_workers
        self.last_loss = "killed by the test"
        self.started = 0
        self.dead: set[str] = set()
        self.leaving: set[str] = set()
        self._desk = desk
        self._calls: dict[Future[Any], PoolWorker] = {}
        self._pool = ThreadPoolExecutor(max_workers=16)

    @property
    def unplaced_s(self) -> float:
        """Workers are always placed here."""
        return 0.0

    def start_missing(self, decisions: Decisions | None) -> None:
        """Fill the pool."""
        while len(self.workers) < self.max_workers:
            name = f"worker-{self.started}"
            actor = WorkerActor(self._desk, name)
            worker = PoolWorker(
                name=name, rank=self.started, slot=0, actor=actor, asked_at=time.monotonic()
            )
            self.started += 1
            self.workers.append(worker)
            self._calls[self._pool.submit(actor.prepare, decisions)] = worker

    def shrink(self) -> None:
        """Let go whom the test names."""
        for worker in self.workers:
            worker.leave_by = math.inf if worker.name in self.leaving else None

    def lose(self, name: str) -> None:
        """Let a worker's next answer be that it is dead."""
        self.dead.add(name)

    def answers(self) -> Iterator[tuple[PoolWorker, Hello | WorkerReport | None]]:
        """Yield what came back."""
        done = wait(list(self._calls), timeout=0.02, return_when="FIRST_COMPLETED").done
        for call in done:
            worker = self._calls.pop(call)
            if worker not in self.workers:
                continue
            if worker.name in self.dead:
                self.end(worker)
                yield worker, None
                continue
            answer = call.result()
            if isinstance(answer, Hello):
                worker.hello = answer
            yield worker, answer

    def send(self, worker: PoolWorker, orders: Orders) -> None:
        """Call a worker."""
        self._calls[self._pool.submit(worker.actor.exchange, orders)] = worker

    def end(self, worker: PoolWorker) -> None:
        """End a worker."""
        self.workers.remove(worker)
        worker.actor.close()

    def end_unready(self) -> None:
        """End those that cannot draw yet."""
        for worker in [worker for worker in self.workers if not worker.is_ready]:
            self.end(worker)

    def end_all(self) -> None:
        """End all."""
        for worker in list(self.workers):
            self.end(worker)
        self._pool.shutdown(wait=True)


def fleet_of(
    desk: Desk,
    *,
    num_shards: int = 20,
    workers: int = 3,
    straggler_floor_s: float = 60.0,
    **hooks: Any,
) -> tuple[Fleet, ThreadPool]:
    """Return a fleet of threads over shards of one image.

    A busy machine may hold a thread up for long: only a test that waits for copies of slow shards
    sets `straggler_floor_s` low.
    """
    pool = ThreadPool(desk, workers)
    table = ShardTable(plan_shards(num_shards, 1), straggler_floor_s=straggler_floor_s)
    decide = hooks.pop("decide", lambda proposal: proposal)
    return Fleet(table, pool, FleetHooks(decide=decide, **hooks)), pool
