"""A crew of threads and studios that draw nothing, for tests of the fleet."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from orchestrator.fleet.actor import Hello, Orders, SampleWorker, WorkerReport
from orchestrator.fleet.fleet import Fleet, FleetHooks
from orchestrator.fleet.pool import CrewMember
from orchestrator.fleet.table import ShardTable
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.units import plan_shards
from orchestrator.sampling.drawing import Canvas
from orchestrator.sampling.studio import Result


@dataclass
class Desk:
    """What the studios of one test share: what was drawn, and what is to go wrong."""

    drawn: list[tuple[str, int]] = field(default_factory=list)
    partials: list[tuple[int, str]] = field(default_factory=list)
    begun: list[Mapping[str, Any]] = field(default_factory=list)
    before_drawing: Callable[[str, ShardTask, Watch], None] = lambda worker, task, watch: None
    drawing: dict[str, int] = field(default_factory=dict)
    committed: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, worker: str) -> "FakeStudio":
        """Return a worker's studio."""
        return FakeStudio(self, worker)


@dataclass
class FakeStudio:
    """Draws nothing, at once."""

    desk: Desk
    worker: str

    def prepare(self, decisions: Mapping[str, Any] | None) -> dict[str, Any]:
        """Propose the worker's own name."""
        return {} if decisions else {"decided_by": self.worker}

    def begin(self, decisions: Mapping[str, Any]) -> list[str]:
        """Remember what was decided."""
        self.desk.begun.append(decisions)
        return []

    def compute(self, task: ShardTask, watch: Watch) -> Result:
        """Do what the test wants, then return a canvas as it is."""
        self.desk.before_drawing(self.worker, task, watch)
        return None if watch.is_dropped(task.shard.index) else Canvas(shard=task.shard)

    def keep(self, task: ShardTask, result: Result) -> ShardEvent:
        """Commit in memory, unless the drawing was stopped on its way."""
        index = task.shard.index
        if result is None:
            return ShardEvent(index=index, kind="dropped")
        assert isinstance(result, Canvas)
        if result.seconds < 0:
            return ShardEvent(index=index, kind="halved", partial=f"partial-{index}")
        with self.desk.lock:
            self.desk.drawn.append((self.worker, index))
            self.desk.partials.append((index, task.partial))
            is_own = index not in self.desk.committed
            self.desk.committed.add(index)
        return ShardEvent(index=index, kind="committed", is_own=is_own)


class ThreadCrew:
    """A crew whose workers are threads of this process; a test may declare one dead."""

    place_within_s = 2.0
    num_unplaced = 0

    def __init__(self, desk: Desk, max_workers: int) -> None:
        self.members: list[CrewMember] = []
        self.max_workers = max_workers
        self.last_loss = "killed by the test"
        self.hired = 0
        self.dead: set[str] = set()
        self.leaving: set[str] = set()
        self._desk = desk
        self._calls: dict[Future[Any], CrewMember] = {}
        self._pool = ThreadPoolExecutor(max_workers=16)

    @property
    def unplaced_s(self) -> float:
        """Workers are always placed here."""
        return 0.0

    def hire(self, decisions: Mapping[str, Any] | None) -> None:
        """Fill the crew."""
        while len(self.members) < self.max_workers:
            name = f"worker-{self.hired}"
            worker = SampleWorker(self._desk, name)
            member = CrewMember(
                name=name, rank=self.hired, slot=0, actor=worker, hired_at=time.monotonic()
            )
            self.hired += 1
            self.members.append(member)
            self._calls[self._pool.submit(worker.prepare, decisions)] = member

    def shrink(self) -> None:
        """Let go whom the test names."""
        for member in self.members:
            member.leave_by = math.inf if member.name in self.leaving else None

    def kill(self, name: str) -> None:
        """Let a worker's next answer be that it is dead."""
        self.dead.add(name)

    def answers(self) -> Iterator[tuple[CrewMember, Hello | WorkerReport | None]]:
        """Yield what came back."""
        done = wait(list(self._calls), timeout=0.02, return_when="FIRST_COMPLETED").done
        for call in done:
            member = self._calls.pop(call)
            if member not in self.members:
                continue
            if member.name in self.dead:
                self.release(member)
                yield member, None
                continue
            answer = call.result()
            if isinstance(answer, Hello):
                member.hello = answer
            yield member, answer

    def send(self, member: CrewMember, orders: Orders) -> None:
        """Call a worker."""
        self._calls[self._pool.submit(member.actor.exchange, orders)] = member

    def release(self, member: CrewMember) -> None:
        """End a worker."""
        self.members.remove(member)
        member.actor.close()

    retire = release

    def dismiss_unready(self) -> None:
        """End those that cannot draw yet."""
        for member in [member for member in self.members if not member.is_ready]:
            self.release(member)

    def dismiss(self) -> None:
        """End all."""
        for member in list(self.members):
            self.release(member)
        self._pool.shutdown(wait=True)


def fleet_of(
    desk: Desk,
    *,
    num_shards: int = 20,
    workers: int = 3,
    straggler_floor_s: float = 60.0,
    **hooks: Any,
) -> tuple[Fleet, ThreadCrew]:
    """Return a fleet of threads over shards of one image.

    A busy machine may hold a thread up for long: only a test that waits for copies of slow shards
    sets `straggler_floor_s` low.
    """
    crew = ThreadCrew(desk, workers)
    table = ShardTable(plan_shards(num_shards, 1), straggler_floor_s=straggler_floor_s)
    decide = hooks.pop("decide", dict)
    return Fleet(table, crew, FleetHooks(decide=decide, **hooks)), crew  # type: ignore[arg-type]
