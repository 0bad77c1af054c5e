"""A store of which one write fails, or ends the process that does it, and a world that goes on."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from orchestrator.errors import ConditionFailedError, StoreUnavailableError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import TRANSITIONS, JobState
from tests.support.fakes import MemoryStore
from tests.support.world import World

# A process dies before a write or after it; the store refuses one, or does it and loses the answer;
# the answer is lost and the client sends it again.
MODES = ("dies before", "dies after", "refused", "unanswered", "repeated")

_T = TypeVar("_T")


class Death(BaseException):
    """The end of a process, which nothing in it catches."""


class FailingStore(MemoryStore):
    """A store of which one write fails, or is the last that a process comes to.

    Attributes:
        fail_at: The write that fails, from 1; 0 for none.
        mode: How, one of `MODES`.
        num_writes: Writes of watched processes so far.
        is_watched: Whether writes count now.
        failed: The key of the write that failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fail_at, self.mode = 0, MODES[0]
        self.num_writes = 0
        self.is_watched = False
        self.failed = ""

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write, or fail."""
        write = super().put
        return self._done(key, lambda: write(key, body, if_absent=if_absent, if_match=if_match))

    def delete(self, key: str) -> None:
        """Remove an object, or fail."""
        remove = super().delete
        self._done(key, lambda: remove(key))

    def _done(self, key: str, write: Callable[[], _T]) -> _T:
        self.num_writes += self.is_watched
        if not self.is_watched or self.num_writes != self.fail_at:
            return write()
        self.failed = key
        if self.mode == "dies before":
            raise Death
        if self.mode == "refused":
            raise StoreUnavailableError("this once")
        done = write()
        if self.mode == "dies after":
            raise Death
        if self.mode == "unanswered":
            raise StoreUnavailableError("the answer is lost, this once")
        if self.mode == "repeated":  # it is done, or meets itself, as `S3Store` sees then
            with suppress(ConditionFailedError):
                return write()
        return done


class FailingWorld(World):
    """A world whose orchestrator is replaced when it dies, and whose users try again."""

    store: FailingStore

    def __init__(self) -> None:
        super().__init__()
        self.store = FailingStore()
        self.records = RecordStore(self.store)
        self.controller = self.new_controller()

    def step(self, times: int = 1) -> None:
        """Run the loop; its death is another one's beginning."""
        for _ in range(times):
            self.store.advance(1)
            try:
                self._watched(self.controller.step)
            except (Death, StoreUnavailableError):
                self.controller = self.new_controller()
                self.controller.step()

    def ask(self, verb: Callable[[], _T]) -> _T:
        """Have a user call a verb, and call it once more when it died or the store failed it."""
        try:
            return self._watched(verb)
        except (Death, StoreUnavailableError):
            return verb()

    def _watched(self, act: Callable[[], _T]) -> _T:
        self.store.is_watched = True
        try:
            return act()
        finally:
            self.store.is_watched = False

    def until(self, job_id: str, *states: JobState) -> None:
        """Run the loop until a job is in one of these states."""
        for _ in range(12):
            if self.records.read(job_id).record.state in states:
                return
            self.step()
        raise AssertionError(f"{job_id} is {self.state(job_id)}, not {states}")


def history(world: World, job_id: str) -> list[tuple[str, int]]:
    """Return the moves that the history tells, as (state, attempt)."""
    told = world.records.events(job_id)
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    return [(event.state, event.attempt) for event in told if event.state]


def check_history(world: World, job_id: str) -> None:
    """Check that a history has neither gaps nor doubles, and ends where the record is."""
    moves = [JobState(state) for state, _ in history(world, job_id)]
    assert moves[0] is JobState.QUEUED, moves
    for before, after in itertools.pairwise(moves):
        assert after in TRANSITIONS[before], moves
    record = world.record(job_id)
    assert moves[-1] is record.state, moves
    assert moves.count(JobState.STARTING) == record.attempt, moves
