"""The fleet goes on with what is left, hands out no shard in vain, and knows when to give up."""

import threading
import time
from typing import Self

import pytest

from orchestrator.errors import StoreUnavailableError, WorkersLostError
from orchestrator.fleet.actor import Orders, WorkerActor
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import Shard
from orchestrator.sampling.drawing import UnfinishedShard
from orchestrator.sampling.worker import Result
from tests.support.pool import Desk, FakeWork, fleet_of, proposal_of


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
    decided: list[Decisions] = []

    def decide(proposal: Decisions) -> Decisions:
        decided.append(proposal)
        return Decisions({"decided": proposal.values["decided_by"]})

    fleet, _ = fleet_of(desk, decide=decide)
    fleet.run(threading.Event(), no_grace)
    assert len(decided) == 1
    assert all(begun.values == {"decided": decided[0].values["decided_by"]} for begun in desk.begun)
    assert len(desk.begun) > 1


def test_shards_of_a_dead_worker_are_drawn_by_others() -> None:
    """A lost machine costs what it had in hand and nothing else."""
    desk = Desk()
    release = threading.Event()

    victims: list[str] = []

    def hang_in_the_first_shard(worker: str, task: ShardTask, watch: Watch) -> None:
        if task.shard.index == 0 and not victims:
            victims.append(worker)
            pool.lose(worker)
            release.wait(5)

    desk.before_drawing = hang_in_the_first_shard
    told: list[str] = []
    fleet, pool = fleet_of(desk, tell=told.append)
    fleet.run(threading.Event(), no_grace)
    release.set()
    assert desk.committed == set(range(20))
    assert fleet.totals.deaths == 1
    assert told[0].startswith(f"{victims[0]} is lost; it held 0")
    assert pool.started == 4


def test_commit_of_a_dead_worker_counts() -> None:
    """A worker that died between its commit and its report has not worked in vain."""
    desk = Desk()

    def kill_in_the_first_shard(worker: str, task: ShardTask, watch: Watch) -> None:
        if task.shard.index == 0 and not pool.dead:
            pool.lose(worker)

    desk.before_drawing = kill_in_the_first_shard

    def is_committed(shard: Shard) -> bool:
        return shard.index == 0

    fleet, pool = fleet_of(desk, is_committed=is_committed)
    fleet.run(threading.Event(), no_grace)
    assert [worker for worker, index in desk.drawn if index == 0] in ([], [*pool.dead])
    assert fleet.table.is_complete


def test_fleet_gives_up_when_workers_only_die() -> None:
    """A job whose workers always crash must end with the reason, not run for ever."""
    desk = Desk()
    fleet, pool = fleet_of(desk, workers=1)
    desk.before_drawing = lambda worker, task, watch: pool.lose(worker)
    desk_keep_nothing(desk)
    with pytest.raises(WorkersLostError, match="killed by the test"):
        fleet.run(threading.Event(), no_grace)
    assert pool.started > 3


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
    fleet, pool = fleet_of(desk)
    with pytest.raises(StoreUnavailableError, match="gone"):
        fleet.run(threading.Event(), no_grace)
    assert pool.workers == []


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
    fleet, _ = fleet_of(desk, straggler_floor_s=0.05)
    fleet.run(threading.Event(), no_grace)
    assert given_up.is_set()
    assert fleet.table.statistics().num_duplicates >= 1
    assert [worker for worker, index in desk.drawn if index == 5] != [desk.__dict__["slow"]]


class HalvingWork(FakeWork):
    """Draws until it is told to stop, and leaves what it has of its shard then."""

    def compute(self, task: ShardTask, watch: Watch) -> Result:
        """Wait for the stop."""
        self.desk.drawing[self.worker] = task.shard.index
        while not watch.is_stopped:
            time.sleep(0.01)
        return UnfinishedShard(shard=task.shard, seconds=-1)


class HalvingDesk(Desk):
    """Opens such work."""

    def open(self, worker: str, decisions: Decisions | None) -> FakeWork:
        """Return what a worker works with."""
        return HalvingWork(self, worker, proposal_of(worker, decisions))


def test_stopped_fleet_hands_back_what_it_holds() -> None:
    """The next attempt goes on from the partial of each shard, told to the table."""
    desk, stop = HalvingDesk(), threading.Event()

    def stop_when_all_draw(fleet: Fleet) -> None:
        if len(desk.drawing) == 3:
            stop.set()

    fleet, pool = fleet_of(desk, tick=stop_when_all_draw)
    fleet.run(stop, no_grace)
    assert not fleet.table.is_complete
    assert len(set(desk.drawing.values())) == 3
    for index in desk.drawing.values():
        assert fleet.table.partial(index) == f"partial-{index}"
    assert fleet.table.statistics().num_in_flight == 0
    assert pool.workers == []


def test_worker_that_leaves_saves_and_the_others_go_on() -> None:
    """A fleet gives room back when another job waits for it, and loses nothing by that."""
    desk = HalvingDesk()

    def watch_the_first(fleet: Fleet) -> None:
        if len(desk.drawing) == 2:
            pool.leaving.add("worker-0")
        if "worker-0" not in [worker.name for worker in fleet.workers]:
            stop.set()

    stop = threading.Event()
    fleet, pool = fleet_of(desk, workers=2, num_shards=2, tick=watch_the_first)
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


class SlowStarters(Desk):
    """Their workers take a while to build the network; the first one does not."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled = threading.Event()

    def open(self, worker: str, decisions: Decisions | None) -> FakeWork:
        """Return what a worker works with."""
        return SlowStarter(self, worker, proposal_of(worker, decisions))


class SlowStarter(FakeWork):
    """Compiles until the test is content."""

    def begin(self, decisions: Decisions) -> Self:
        """Wait, unless it is the first."""
        assert isinstance(self.desk, SlowStarters)
        if self.worker != "worker-0":
            self.desk.compiled.wait(10)
        return super().begin(decisions)


def test_worker_that_compiles_holds_no_shard() -> None:
    """What it held would wait for its compiler, and look like a straggler's."""
    desk = SlowStarters()
    held: set[str] = set()

    def look(fleet: Fleet) -> None:
        holders = (fleet.table.workers_on(shard.index) for shard in fleet.table.plan)
        held.update(name for names in holders for name in names)

    fleet, _ = fleet_of(desk, tick=look)
    fleet.run(threading.Event(), no_grace)
    desk.compiled.set()
    assert held == {"worker-0"}
    assert {worker for worker, _ in desk.drawn} == {"worker-0"}


def test_stop_does_not_wait_for_a_compiler() -> None:
    """A worker that has nothing to save is ended at once; the grace is for the others."""
    desk, stop = SlowStarters(), threading.Event()
    desk.before_drawing = lambda worker, task, watch: stop.set()
    fleet, pool = fleet_of(desk, num_shards=1000)
    began_at = time.monotonic()
    fleet.run(stop, lambda: 5.0)
    desk.compiled.set()
    assert time.monotonic() - began_at < 4.0
    assert pool.workers == []


class Painter(FakeWork):
    """Does ten reverse steps a shard, and waits in the middle of each for the test."""

    def compute(self, task: ShardTask, watch: Watch) -> Result:
        """Draw."""
        for step in range(1, 11):
            watch.show(task.shard.index, step, 10)
            watch.count(1)
            if step == 4:
                self.desk.before_drawing(self.worker, task, watch)
        return super().compute(task, watch)


class PainterDesk(Desk):
    """Opens such work."""

    def open(self, worker: str, decisions: Decisions | None) -> FakeWork:
        """Return what a worker works with."""
        return Painter(self, worker, proposal_of(worker, decisions))


def test_every_reverse_step_is_counted() -> None:
    """What a retry saves, and what a lost worker costs, is seen by counting."""
    fleet, _ = fleet_of(PainterDesk())
    fleet.run(threading.Event(), no_grace)
    assert fleet.totals.reverse_steps == 20 * 10


def test_a_lost_workers_seconds_are_redone_and_the_others_useful() -> None:
    """What a fleet of spot machines really costs is told apart from what the images cost."""
    desk = Desk()

    def work(worker: str, task: ShardTask, watch: Watch) -> None:
        if task.shard.index == 2 and worker == "worker-0":
            seen.wait(5)
            pool.lose(worker)
        time.sleep(0.02)

    def look(fleet: Fleet) -> None:
        reports = [worker.report for worker in fleet.workers if worker.report]
        if any(report.busy_s > 0.3 for report in reports):
            seen.set()

    seen = threading.Event()
    desk.before_drawing = work
    fleet, pool = fleet_of(desk, workers=1, num_shards=5, tick=look)
    fleet.run(threading.Event(), no_grace)
    assert fleet.totals.deaths == 1
    assert fleet.totals.redone_s > 0.2
    assert 0.05 < fleet.totals.useful_s < 1.0


def test_a_worker_that_is_closed_waits_for_no_shard() -> None:
    """Its thread would keep the process from ending."""
    others = set(threading.enumerate())
    worker = WorkerActor(Desk(), "idle")
    worker.prepare(None)
    worker.exchange(Orders(decisions=Decisions({"decided_by": "idle"}), wait_s=0.05))
    worker.close()
    for thread in set(threading.enumerate()) - others:
        thread.join(30)
        assert not thread.is_alive()
