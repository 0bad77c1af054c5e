"""Each shard of a set is drawn, and counted, exactly once, whatever the workers do."""

import itertools
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.errors import BadInputError
from orchestrator.fleet.table import ShardTable
from orchestrator.jobs.units import Shard, plan_shards
from tests.support.examples import examples

WORKERS = ("a", "b", "c")


def take(table: ShardTable, worker: str, now: float = 0.0) -> Shard:
    """Return the next shard, which there must be."""
    shard = table.next_for(worker, now)
    assert shard is not None
    return shard


@given(num_samples=st.integers(1, 10_000), shard_size=st.integers(1, 2_000))
def test_plan_covers_every_image_once(num_samples: int, shard_size: int) -> None:
    """A gap or an overlap would make the set wrong at every fleet size."""
    shards = list(plan_shards(num_samples, shard_size))
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert shards[0].start == 0
    assert shards[-1].stop == num_samples
    assert all(left.stop == right.start for left, right in itertools.pairwise(shards))
    assert all(shard.num_images == shard_size for shard in shards[:-1])


@pytest.mark.parametrize(("num_samples", "shard_size"), [(0, 1), (1, 0), (-5, 3)])
def test_empty_set_and_empty_shard_are_refused(num_samples: int, shard_size: int) -> None:
    """Neither has an answer, and a division by zero is none."""
    with pytest.raises(BadInputError, match="must be at least 1"):
        plan_shards(num_samples, shard_size)


def test_shard_beyond_the_plan_is_refused() -> None:
    """A commit of another plan must not be counted into this one."""
    table = ShardTable(plan_shards(10, 4))
    with pytest.raises(IndexError, match=r"0\.\.2, not 3"):
        table.mark_committed(3)


def test_lost_workers_shards_go_to_the_front() -> None:
    """What a dead worker held is the oldest work there is; at the end it would be the tail."""
    table = ShardTable(plan_shards(100, 10))
    first, second = take(table, "a"), take(table, "a")
    take(table, "b")
    assert table.lost("a", 1.0) == (first, second)
    assert take(table, "b") == first
    assert take(table, "b") == second
    assert take(table, "b").index == 3


def test_resumed_set_hands_out_only_what_is_missing() -> None:
    """A driver that died loses only what was not committed."""
    table = ShardTable(plan_shards(50, 10))
    assert table.mark_committed(0)
    assert table.mark_committed(3)
    assert not table.mark_committed(3)
    assert [take(table, "a").index for _ in range(3)] == [1, 2, 4]
    assert table.next_for("a", 0.0) is None
    assert [shard.index for shard in table.missing()] == [1, 2, 4]


def test_short_shard_is_no_straggler_before_the_floor() -> None:
    """A shard of milliseconds that waits in a worker's queue is not slow."""
    table = ShardTable(plan_shards(2, 1), straggler_factor=2.0, straggler_floor_s=3.0)
    first, second = table.next_for("a", 0.0), table.next_for("b", 0.0)
    assert first is not None
    assert second is not None
    table.done(first, "a", 0.01)
    assert table.next_for("a", 2.9) is None
    assert table.next_for("a", 3.1) == second


def test_idle_worker_duplicates_a_straggler_at_the_tail() -> None:
    """One slow machine must not hold back a whole set."""
    table = ShardTable(plan_shards(4, 1), straggler_factor=2.0)
    slow = take(table, "slow", now=0.0)
    for second in range(3):
        shard = take(table, "quick", now=float(second))
        table.done(shard, "quick", now=second + 1.0)
    assert table.next_for("quick", now=2.0) is None  # twice the median is not over it
    assert table.next_for("slow", now=3.0) is None  # it has it already
    assert table.next_for("quick", now=3.0) == slow
    assert table.next_for("third", now=9.0) is None  # two are enough
    assert table.workers_on(slow.index) == ("slow", "quick")
    assert table.done(slow, "quick", now=4.0)
    assert not table.done(slow, "slow", now=5.0)
    statistics = table.statistics()
    assert table.is_complete
    assert (statistics.images_done, statistics.num_duplicates) == (4, 1)
    assert (statistics.useful_s, statistics.redone_s) == (4.0, 4.0)


def test_shard_of_a_lost_worker_stays_with_its_second_holder() -> None:
    """Handing it out a third time would be work for nothing."""
    table = ShardTable(plan_shards(2, 1))
    table.done(take(table, "a", 0.0), "a", 1.0)
    slow = take(table, "a", 1.0)
    assert table.next_for("b", 10.0) == slow
    table.lost("a", 11.0)
    assert table.next_for("c", 11.0) is None
    assert table.done(slow, "b", 12.0)


def test_stopped_workers_successor_goes_on_from_its_partial() -> None:
    """A preempted worker has drawn 900 of 1,000 steps; nobody should draw them again."""
    table = ShardTable(plan_shards(20, 10))
    shard = take(table, "a", 0.0)
    table.give_back(shard, "a", 5.0, partial="partial/0-x7")
    assert take(table, "b", 6.0) == shard
    assert table.partial(shard.index) == "partial/0-x7"
    assert table.statistics().redone_s == 0.0
    table.done(shard, "b", 7.0)
    assert table.partial(shard.index) is None


def test_late_partial_of_a_committed_shard_is_ignored() -> None:
    """A worker of an old attempt that wakes up changes nothing that is committed."""
    table = ShardTable(plan_shards(10, 10))
    shard = take(table, "a")
    table.mark_committed(shard.index)
    table.give_back(shard, "a", 1.0, partial="partial/late")
    table.keep_partial(shard.index, "partial/later")
    assert table.partial(shard.index) is None
    assert table.next_for("a", 1.0) is None


def test_memory_does_not_grow_with_the_set() -> None:
    """Five million images are handed out by a driver as small as that of fifty thousand."""
    tracemalloc.start()
    table = ShardTable(plan_shards(10_000_000, 100))
    for _ in range(20_000):
        table.done(take(table, "a"), "a", 1.0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 200_000


def test_table_is_never_what_a_fleet_waits_for() -> None:
    """Hundreds of workers ask it; 10,000 hand-outs a second is far below what it does."""
    table = ShardTable(plan_shards(10**6, 100))
    start = time.process_time()
    while (shard := table.next_for("a", 0.0)) is not None:
        table.done(shard, "a", 1.0)
    assert table.is_complete
    assert time.process_time() - start < 1.0


class Fleet(RuleBasedStateMachine):
    """Workers that take, finish, give back, die and wake up in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ShardTable(plan_shards(23, 3))
        self.now = 0.0
        self.taken: list[tuple[Shard, str]] = []
        self.counted: list[int] = []

    @rule(worker=st.sampled_from(WORKERS), pause_s=st.floats(0.1, 50))
    def take(self, worker: str, pause_s: float) -> None:
        """A worker asks for a shard."""
        self.now += pause_s
        shard = self.table.next_for(worker, self.now)
        if shard is not None:
            assert not self.table.is_committed(shard.index)
            assert len(self.table.workers_on(shard.index)) <= 2
            self.taken.append((shard, worker))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A worker, perhaps one that was given up, commits a shard."""
        shard, worker = data.draw(st.sampled_from(self.taken))
        if self.table.done(shard, worker, self.now):
            self.counted.append(shard.index)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """A worker gives a shard back."""
        shard, worker = data.draw(st.sampled_from(self.taken))
        self.table.give_back(shard, worker, self.now, partial="key")

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        """A worker is lost."""
        self.table.lost(worker, self.now)
        assert all(worker not in self.table.workers_on(shard.index) for shard in self.table.plan)

    @invariant()
    def each_shard_is_counted_once(self) -> None:
        """The count is what makes a set exactly N."""
        assert len(self.counted) == len(set(self.counted))
        statistics = self.table.statistics()
        assert statistics.num_done == len(self.counted)
        assert statistics.images_done == sum(self.table.plan[i].num_images for i in self.counted)

    def teardown(self) -> None:
        """One worker that lives finishes whatever the others left."""
        for worker in WORKERS:
            self.table.lost(worker, self.now)
        while (shard := self.table.next_for("last", self.now)) is not None:
            assert self.table.done(shard, "last", self.now)
        assert self.table.is_complete
        assert self.table.statistics().images_done == 23


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=examples(40), stateful_step_count=40, deadline=None)
