"""A job's history and its record tell the same, whoever died between the two."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from orchestrator.client.submit import submit_job
from orchestrator.controller.loop import Controller
from orchestrator.errors import StoreUnavailableError
from orchestrator.jobs.records import Event, RecordStore
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import Reason
from tests.support.fakes import MemoryStore
from tests.support.world import World, train_job

# The orchestrator dies before a write or after it; the store refuses one, or does it and loses the
# answer; the answer is lost and the client sends it again.
MODES = ("dies before", "dies after", "refused", "unanswered", "repeated")


class Death(BaseException):
    """The end of a process, which nothing in it catches."""


class FailingStore(MemoryStore):
    """A store of which one write fails, or is the last that an orchestrator comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_at, self.mode = 0, MODES[0]
        self.num_puts = 0
        self.is_watched = False

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write, or fail."""
        self.num_puts += self.is_watched
        is_it = self.is_watched and self.num_puts == self.fail_at
        if is_it and self.mode == "dies before":
            raise Death
        if is_it and self.mode == "refused":
            raise StoreUnavailableError("this once")
        etag = super().put(key, body, if_absent=if_absent, if_match=if_match)
        if is_it and self.mode == "dies after":
            raise Death
        if is_it and self.mode == "unanswered":
            raise StoreUnavailableError("the answer is lost, this once")
        if is_it:  # the answer is lost, and the client sends it again
            return super().put(key, body, if_absent=if_absent, if_match=if_match)
        return etag


class FailingWorld(World):
    """A world whose orchestrator is replaced when it dies."""

    def __init__(self) -> None:
        super().__init__()
        self.store = FailingStore()
        self.records = RecordStore(self.store)
        self.controller = self.new_controller()

    def step(self, times: int = 1) -> None:
        """Run the loop; its death is another one's beginning."""
        for _ in range(times):
            self.store.advance(1)
            self._watched(self.controller.step)

    def _watched(self, act: Callable[[], None]) -> None:
        assert isinstance(self.store, FailingStore)
        self.store.is_watched = True
        try:
            act()
        except (Death, StoreUnavailableError):
            self.store.fail_at = 0
            self.controller = self._successor()
            self.controller.step()
        finally:
            self.store.is_watched = False

    def _successor(self) -> Controller:
        return self.new_controller()


def life(world: World) -> str:
    """Live a training's life: it loses a worker, is tried again, succeeds; return its id."""
    job_id = submit_job(world.store, train_job(), "j").job_id
    world.step(2)
    world.begin(job_id)
    world.step(2)
    world.end(job_id, Outcome(reason=Reason.WORKER_LOST, message="lost"))
    world.step(3)
    world.store.advance(60)
    world.step(2)
    world.begin(job_id, pid=101)
    world.step(2)
    world.end(job_id, Outcome(succeeded=True, progress=10), pid=101)
    world.step(3)
    return job_id


def history(world: World, job_id: str) -> list[tuple[str | None, int]]:
    """Return the moves that the history tells."""
    told = world.records.events(job_id)
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    return [(event.state, event.attempt) for event in told if event.state]


UNDISTURBED = FailingWorld()
MOVES = history(UNDISTURBED, life(UNDISTURBED))
assert isinstance(UNDISTURBED.store, FailingStore)
NUM_PUTS = UNDISTURBED.store.num_puts


def test_an_undisturbed_life_has_all_its_moves() -> None:
    """What the others are compared with."""
    assert [state for state, _ in MOVES] == [
        *("QUEUED", "STARTING", "RUNNING", "STOPPING"),
        *("QUEUED", "STARTING", "RUNNING", "SUCCEEDED"),
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_death_at_any_write_leaves_a_history_without_gaps_or_doubles(mode: str) -> None:
    """Seven of eight moves were lost for good, and one whose answer was lost was told twice."""
    assert NUM_PUTS > 20
    for fail_at in range(1, NUM_PUTS + 1):
        world = FailingWorld()
        assert isinstance(world.store, FailingStore)
        world.store.fail_at, world.store.mode = fail_at, mode
        job_id = life(world)
        assert history(world, job_id) == MOVES, (mode, fail_at)
        assert world.state(job_id) == "SUCCEEDED"


def test_an_event_that_stands_already_is_not_written_again() -> None:
    """Sent again after a lost answer it would stand twice; another one's is not ours."""
    store = MemoryStore()
    records = RecordStore(store)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ours, theirs = Event(at=at, message="ours"), Event(at=at, message="theirs")
    records.append_event("j", theirs)
    records.append_event("j", ours)
    assert [event.message for event in records.events("j")] == ["theirs", "ours"]
