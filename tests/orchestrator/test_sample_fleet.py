"""The fleet goes on with what is left, hands out no shard in vain, and knows when to give up."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.errors import StoreUnavailableError
from orchestrator.sample_crew import CrewMember
from orchestrator.sample_drawing import Canvas, ShardTask, Watch
from orchestrator.sample_fleet import Fleet, FleetHooks, WorkersLostError
from orchestrator.sample_studio import Result, ShardEvent
from orchestrator.sample_worker import Hello, Orders, SampleWorker, WorkerReport
from orchestrator.shards import Shard, ShardTable, plan_shards


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

    def draw(self, task: ShardTask, watch: Watch) -> Result:
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
        self._dead_calls: deque[CrewMember] = deque()

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
            member.is_leaving = member.name in self.leaving

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
        """End those that have not begun."""
        for member in [member for member in self.members if member.hello is None]:
            self.release(member)

    def dismiss(self) -> None:
        """End all."""
        for member in list(self.members):
            self.release(member)
        self._pool.shutdown(wait=True)


def fleet_of(
    desk: Desk, *, num_shards: int = 20, workers: int = 3, **hooks: Any
) -> tuple[Fleet, ThreadCrew]:
    """Return a fleet of threads over shards of one image."""
    crew = ThreadCrew(desk, workers)
    table = ShardTable(plan_shards(num_shards, 1), straggler_floor_s=0.05)
    decide = hooks.pop("decide", dict)
    return Fleet(table, crew, FleetHooks(decide=decide, **hooks)), crew  # type: ignore[arg-type]


def no_grace() -> float:
    """Return what the tests give to workers that are told to stop."""
    return 5.0


def test_each_shard_is_drawn_once_where_nothing_goes_wrong() -> None:
    """The plain path: no copy in vain, and everything counted as useful."""
    desk = Desk()
    fleet, _ = fleet_of(desk)
    fleet.run(threading.Event(), no_grace)
    assert sorted(index for _, index in desk.drawn) == list(range(20))
    assert fleet.totals.images == 20
    assert fleet.totals.deaths == 0


def test_first_proposal_decides_for_all() -> None:
    """Two workers on different machines must not compute differently."""
    desk = Desk()
    decided: list[Mapping[str, Any]] = []

    def decide(proposal: Mapping[str, Any]) -> Mapping[str, Any]:
        decided.append(proposal)
        return {"decided": proposal["decided_by"]}

    fleet, _ = fleet_of(desk, decide=decide)
    fleet.run(threading.Event(), no_grace)
    assert len(decided) == 1
    assert {tuple(begun.items()) for begun in desk.begun} == {
        (("decided", decided[0]["decided_by"]),)
    }


def test_shards_of_a_dead_worker_are_drawn_by_others() -> None:
    """A lost machine costs what it had in hand and nothing else."""
    desk = Desk()
    release = threading.Event()

    victims: list[str] = []

    def hang_in_the_first_shard(worker: str, task: ShardTask, watch: Watch) -> None:
        if task.shard.index == 0 and not victims:
            victims.append(worker)
            crew.kill(worker)
            release.wait(5)

    desk.before_drawing = hang_in_the_first_shard
    told: list[str] = []
    fleet, crew = fleet_of(desk, tell=told.append)
    fleet.run(threading.Event(), no_grace)
    release.set()
    assert desk.committed == set(range(20))
    assert fleet.totals.deaths == 1
    assert told[0].startswith(f"{victims[0]} is lost; it held 0")
    assert crew.hired == 4


def test_commit_of_a_dead_worker_counts() -> None:
    """A worker that died between its commit and its report has not worked in vain."""
    desk = Desk()

    def kill_in_the_first_shard(worker: str, task: ShardTask, watch: Watch) -> None:
        if task.shard.index == 0 and not crew.dead:
            crew.kill(worker)

    desk.before_drawing = kill_in_the_first_shard

    def is_committed(shard: Shard) -> bool:
        return shard.index == 0

    fleet, crew = fleet_of(desk, is_committed=is_committed)
    fleet.run(threading.Event(), no_grace)
    assert [worker for worker, index in desk.drawn if index == 0] in ([], [*crew.dead])
    assert fleet.table.is_complete


def test_fleet_gives_up_when_workers_only_die() -> None:
    """A job whose workers always crash must end with the reason, not run for ever."""
    desk = Desk()
    fleet, crew = fleet_of(desk, workers=1)
    desk.before_drawing = lambda worker, task, watch: crew.kill(worker)
    desk_keep_nothing(desk)
    with pytest.raises(WorkersLostError, match="killed by the test"):
        fleet.run(threading.Event(), no_grace)
    assert crew.hired > 3


def desk_keep_nothing(desk: Desk) -> None:
    """Have every worker killed before it can report a commit."""
    kill = desk.before_drawing

    def kill_and_wait(worker: str, task: ShardTask, watch: Watch) -> None:
        kill(worker, task, watch)
        time.sleep(0.05)

    desk.before_drawing = kill_and_wait


def test_error_of_the_work_itself_ends_the_fleet() -> None:
    """Another worker would meet it as well, so its own type reaches the driver."""
    desk = Desk()

    def fail(worker: str, task: ShardTask, watch: Watch) -> None:
        raise StoreUnavailableError("the store is gone")

    desk.before_drawing = fail
    fleet, crew = fleet_of(desk)
    with pytest.raises(StoreUnavailableError, match="gone"):
        fleet.run(threading.Event(), no_grace)
    assert crew.members == []


def test_slow_shard_is_given_to_an_idle_worker_too() -> None:
    """One slow machine must not hold up the end of the set; its copy is then given up."""
    desk = Desk()
    given_up = threading.Event()

    def hang_on_five(worker: str, task: ShardTask, watch: Watch) -> None:
        if task.shard.index == 5 and "slow" not in desk.__dict__:
            desk.__dict__["slow"] = worker
            while not watch.is_dropped(5):
                time.sleep(0.01)
            given_up.set()

    desk.before_drawing = hang_on_five
    fleet, _ = fleet_of(desk)
    fleet.run(threading.Event(), no_grace)
    assert given_up.is_set()
    assert fleet.table.statistics().num_duplicates >= 1
    assert [worker for worker, index in desk.drawn if index == 5] != [desk.__dict__["slow"]]


class HalvingStudio(FakeStudio):
    """Draws until it is told to stop, and leaves a canvas then."""

    def draw(self, task: ShardTask, watch: Watch) -> Result:
        """Wait for the stop."""
        self.desk.drawing[self.worker] = task.shard.index
        while not watch.is_stopped:
            time.sleep(0.01)
        return Canvas(shard=task.shard, seconds=-1)


class HalvingDesk(Desk):
    """Opens such studios."""

    def open(self, worker: str) -> FakeStudio:
        """Return a worker's studio."""
        return HalvingStudio(self, worker)


def test_stopped_fleet_hands_back_what_it_holds() -> None:
    """The next attempt goes on from the partial of each shard, told to the table."""
    desk, stop = HalvingDesk(), threading.Event()

    def stop_when_all_draw(fleet: Fleet) -> None:
        if len(desk.drawing) == 3:
            stop.set()

    fleet, crew = fleet_of(desk, tick=stop_when_all_draw)
    fleet.run(stop, no_grace)
    assert not fleet.table.is_complete
    assert len(set(desk.drawing.values())) == 3
    for index in desk.drawing.values():
        assert fleet.table.partial(index) == f"partial-{index}"
    assert fleet.table.statistics().num_in_flight == 0
    assert crew.members == []


def test_worker_that_leaves_saves_and_the_others_go_on() -> None:
    """A fleet gives room back when another job waits for it, and loses nothing by that."""
    desk = HalvingDesk()

    def watch_the_first(fleet: Fleet) -> None:
        if len(desk.drawing) == 2:
            crew.leaving.add("worker-0")
        if "worker-0" not in [member.name for member in fleet.members]:
            stop.set()

    stop = threading.Event()
    fleet, crew = fleet_of(desk, workers=2, num_shards=2, tick=watch_the_first)
    fleet.run(stop, no_grace)
    index = desk.drawing["worker-0"]
    assert fleet.table.partial(index) == f"partial-{index}"
    assert fleet.totals.deaths == 0


def test_partial_travels_with_the_shard() -> None:
    """Whoever draws a half-drawn shard is told where the other half is."""
    desk = Desk()
    fleet, _ = fleet_of(desk, num_shards=3, workers=1)
    fleet.table.keep_partial(1, "half-of-1")
    fleet.run(threading.Event(), no_grace)
    assert sorted(desk.partials) == [(0, ""), (1, "half-of-1"), (2, "")]


def test_committed_shards_are_not_drawn_again() -> None:
    """A second attempt does only what is missing."""
    desk = Desk()
    fleet, _ = fleet_of(desk, num_shards=6)
    for index in (0, 2, 3, 5):
        fleet.table.mark_committed(index)
    fleet.run(threading.Event(), no_grace)
    assert sorted(index for _, index in desk.drawn) == [1, 4]
