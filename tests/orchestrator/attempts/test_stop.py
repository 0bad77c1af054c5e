"""A cancel reaches the step loop by four relays: record, driver, board, the first rank's thread."""

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.running import STOP_POLL_EVERY_S, must_stop
from orchestrator.attempts.stop import StopSignal
from orchestrator.client.status import request
from orchestrator.client.submit import submit_job
from orchestrator.controller.leading import LOOK_FOR_REQUESTS_AFTER_S, LOOP_EVERY_S
from orchestrator.fleet.actor import Orders
from orchestrator.fleet.pool import WorkerPool
from orchestrator.jobs.heartbeat import WorkerReport
from orchestrator.jobs.inbox import Verb
from orchestrator.training.board import (
    FIRST_REPORTS_EVERY_S,
    AttemptBoard,
    BoardClient,
    BoardReader,
)
from tests.support.world import World, train_job

WITHIN_S = 2.0


def running() -> tuple[World, Attempt]:
    """Return a job that runs, and its attempt as the driver sees it."""
    world = World()
    submit_job(world.store, train_job(), "a")
    world.step()
    world.begin("a")
    world.step()
    return world, Attempt.open(world.store, "a", 1)


class Call:
    """A method of an actor."""

    def __init__(self, method: Any) -> None:
        self.remote = method


def test_one_step_of_the_loop_says_stop_in_the_one_object_that_drivers_read() -> None:
    """Two objects that say the same were two reads a second of each attempt, and one relay more."""
    world, attempt = running()
    assert not must_stop(attempt)
    request(world.store, "a", Verb.CANCEL, 20)
    before = set(world.store.objects)
    world.step()
    assert must_stop(attempt)
    told = attempt.stop_request()
    assert told is not None
    assert (told.grace_s, told.reason) == (20, "CANCELLED_BY_USER")
    new = {key for key in set(world.store.objects) - before if "/attempts/" in key}
    assert new == set()


def test_a_stop_of_another_attempt_is_not_this_ones() -> None:
    """A driver that outlives its attempt reads the record of the next."""
    world, attempt = running()
    request(world.store, "a", Verb.CANCEL)
    world.step()
    later = Attempt(attempt.store, attempt.spec, attempt.record, 0)
    assert later.stop_request() is None
    assert must_stop(later)


def test_the_loop_is_woken_by_a_request_and_by_none_that_it_has_seen() -> None:
    """Else a request that cannot be handled would keep it busy for ten minutes."""
    world, _ = running()
    assert not world.controller.is_asked()
    request(world.store, "a", Verb.CANCEL)
    assert world.controller.is_asked()
    world.step()
    assert not world.controller.is_asked()


@pytest.mark.parametrize("is_late", [False, True])
def test_the_first_rank_hears_in_its_next_report_that_the_driver_was_told(is_late: bool) -> None:
    """The board is told by the driver's own heartbeat, and not at somebody's next look."""
    board, stop = AttemptBoard(1), StopSignal()
    actor = SimpleNamespace(request_stop=Call(board.request_stop), reports=Call(board.reports))
    attempt: Any = SimpleNamespace(stop=stop)
    client = BoardClient(board.report, rank=0)
    if is_late:
        stop.set()
    stop.listen(BoardReader(attempt, actor).hand_stop_on)
    client.send()
    assert client.stop_requested() is is_late
    stop.set()
    client.send()
    assert client.stop_requested()
    assert board.report(WorkerReport(rank=0))


def test_who_listens_no_more_is_not_called_and_nobody_is_called_twice() -> None:
    """An actor that is gone takes no calls."""
    stop, heard = StopSignal(), list[str]()

    def first() -> None:
        heard.append("first")

    def second() -> None:
        heard.append("second")

    stop.listen(first)
    stop.listen(second)
    stop.forget(first)
    stop.set()
    stop.set()
    assert heard == ["second"]
    assert stop.is_set()


def test_the_waits_on_the_way_of_a_cancel_come_to_less_than_two_seconds() -> None:
    """At the worst each has just looked; what is left over is for the network."""
    orchestrator_s = max(LOOK_FOR_REQUESTS_AFTER_S, LOOP_EVERY_S - LOOK_FOR_REQUESTS_AFTER_S)
    driver_s = orchestrator_s + STOP_POLL_EVERY_S
    answers_s = WorkerPool.answers.__defaults__[0]  # type: ignore[index]
    assert driver_s + FIRST_REPORTS_EVERY_S <= 0.75 * WITHIN_S
    assert driver_s + answers_s + Orders().wait_s <= 0.9 * WITHIN_S
