"""What follows for a job with processes, from what is known of them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import JobRecord, JobState, Reason
from orchestrator.lifecycle.steps import (
    DriverStatus,
    Facts,
    Fail,
    Kill,
    Release,
    Requeue,
    Run,
    Stop,
    Submit,
    Succeed,
    Terminate,
    blamed_nodes,
    is_ended_by_ray,
    next_step,
    with_lost_nodes,
)  # fmt: skip
from tests.support.records import record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
R = DriverStatus


def record(state: JobState, grace_s: float = 0.0) -> JobRecord:
    """Return a record in a state."""
    return record_of("a", at=NOW, state=state, attempt=1, stop_grace_s=grace_s)


STARTING, RUNNING, STOPPING = (
    record(s) for s in (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)
)
ALIVE: dict[str, Any] = {"has_begun": True, "driver_runs": True, "num_running": 2}


def test_an_attempt_that_ray_never_heard_of_is_submitted() -> None:
    """The orchestrator may have died between writing the record and telling Ray."""
    assert next_step(STARTING, Facts(ray=R.ABSENT), None) == Submit()


def test_an_attempt_that_had_begun_and_is_absent_lost_its_cluster() -> None:
    """Ray's table of jobs dies with the head."""
    step = next_step(RUNNING, Facts(ray=R.ABSENT, has_begun=True), None)
    assert isinstance(step, Fail)
    assert step.reason is Reason.CLUSTER_LOST


def test_a_driver_that_ended_without_a_word_is_lost() -> None:
    """An outcome is written before a driver ends; without one it was killed."""
    step = next_step(RUNNING, Facts(ray=R.FAILED, has_begun=True), None)
    assert isinstance(step, Fail)
    assert step.reason is Reason.DRIVER_LOST


@pytest.mark.parametrize("ray", [R.FAILED, R.SUCCEEDED, R.ABSENT, None])
def test_what_ray_says_of_a_driver_that_is_alive_is_not_believed(ray: R | None) -> None:
    """One failed call makes Ray call a living job FAILED for good (ray #65025)."""
    assert next_step(RUNNING, Facts(ray=ray, phase=Phase.RUNNING, **ALIVE), None) is None


def test_no_answer_of_ray_decides_nothing() -> None:
    """A dashboard that restarts must not end every job."""
    assert next_step(RUNNING, Facts(ray=None, has_begun=True), None) is None


def test_a_job_starts_to_run_with_its_first_step() -> None:
    """RUNNING means that the work goes on, not that a process was asked for."""
    assert next_step(STARTING, Facts(ray=R.RUNNING, phase=Phase.STARTING, **ALIVE), None) is None
    assert next_step(STARTING, Facts(ray=R.RUNNING, phase=Phase.RUNNING, **ALIVE), None) == Run()


def test_a_job_has_succeeded_only_when_its_processes_are_gone() -> None:
    """Its GPUs are free then, and not before."""
    done = Outcome(succeeded=True)
    assert next_step(RUNNING, Facts(ray=R.RUNNING, outcome=done, **ALIVE), None) is None
    gone = Facts(ray=R.FAILED, outcome=done, has_begun=True)
    assert next_step(RUNNING, gone, None) == Succeed()


def test_a_driver_that_has_told_its_success_gets_time_to_leave() -> None:
    """It ships its last lines; that its job ran for hours gives nobody the right to kill it."""

    def after(seconds: float) -> object:
        done: dict[str, Any] = {
            "outcome": Outcome(succeeded=True),
            "outcome_age_s": seconds,
            "in_state_s": 7200.0,
        }
        return next_step(RUNNING, Facts(ray=R.RUNNING, **done, **ALIVE), None)

    assert after(1.0) is None
    assert after(20.0) is None
    assert after(26.0) == Terminate()
    assert after(60.0) == Kill()


def test_a_job_that_finished_unseen_still_moves_through_running() -> None:
    """The table holds no move from STARTING to SUCCEEDED."""
    gone = Facts(ray=R.FAILED, outcome=Outcome(succeeded=True), has_begun=True)
    assert next_step(STARTING, gone, None) == Run()


def test_a_driver_that_saved_and_stopped_goes_back_into_the_queue() -> None:
    """Nothing failed: it costs no budget."""
    stopped = Facts(ray=R.FAILED, outcome=Outcome(stopped=True, message="saved"), has_begun=True)
    assert next_step(RUNNING, stopped, None) == Requeue("saved")


def test_a_driver_that_is_dead_is_lost_though_ray_says_that_it_runs() -> None:
    """What watches it in Ray may have died with it, and nobody else writes Ray's table."""
    for ray in (R.RUNNING, R.PENDING):
        fresh = Facts(ray=ray, has_begun=True, silent_s=30.0, in_state_s=7200.0)
        assert next_step(RUNNING, fresh, None) is None
        step = next_step(RUNNING, replace(fresh, silent_s=61.0), None)
        assert isinstance(step, Fail)
        assert step.reason is Reason.DRIVER_LOST


def test_an_attempt_that_ray_never_starts_is_given_up() -> None:
    """Nobody else would end it, and the room that it was given stays empty."""
    for ray, limit_s in ((R.RUNNING, 300.0), (R.PENDING, 900.0)):
        assert next_step(STARTING, Facts(ray=ray, in_state_s=limit_s - 1), None) is None
        step = next_step(STARTING, Facts(ray=ray, in_state_s=limit_s + 1), None)
        assert isinstance(step, Fail)
        assert step.reason is Reason.DRIVER_LOST
    assert next_step(STARTING, Facts(ray=None, in_state_s=301.0), None) is None


def test_whose_processes_are_gone_has_ended_in_the_end_whatever_ray_says() -> None:
    """Else it would be STOPPING for ever, and keep its room."""
    gone = Facts(ray=R.RUNNING, has_begun=True, in_state_s=50.0)
    assert next_step(STOPPING, gone, None) == Terminate()
    assert next_step(STOPPING, replace(gone, in_state_s=61.0), None) == Release()
    assert next_step(STOPPING, replace(gone, in_state_s=61.0, num_running=1), None) == Kill()
    done = replace(gone, outcome=Outcome(succeeded=True))
    assert next_step(RUNNING, replace(done, outcome_age_s=79.0), None) == Terminate()
    assert next_step(RUNNING, replace(done, outcome_age_s=81.0), None) == Succeed()
    assert next_step(RUNNING, replace(done, outcome_age_s=81.0, ray=None), None) == Succeed()


def test_a_process_that_nobody_can_ask_for_is_gone_after_a_while_and_no_sooner() -> None:
    """Its Ray is no more, so it ends within 60 s of its own accord; nobody sees it end."""
    lost = Facts(ray=R.ABSENT, has_begun=True, num_unknown=1, in_state_s=119.0)
    assert next_step(STOPPING, lost, None) == Terminate()  # and nothing is killed elsewhere
    assert next_step(STOPPING, replace(lost, in_state_s=121.0), None) == Release()
    grace = record(JobState.STOPPING, grace_s=30.0)
    assert next_step(grace, replace(lost, in_state_s=121.0), None) == Terminate()
    assert next_step(grace, replace(lost, in_state_s=151.0), None) == Release()
    step = next_step(RUNNING, lost, None)
    assert isinstance(step, Fail)  # it must read STOPPING, if it lives
    assert step.reason is Reason.CLUSTER_LOST


def test_a_job_past_its_time_is_stopped() -> None:
    """`max_runtime_s` is what backfill plans with, so it must hold."""
    step = next_step(RUNNING, Facts(ray=R.RUNNING, running_s=11.0, **ALIVE), 10.0)
    assert isinstance(step, Stop)
    assert step.reason is Reason.TIMED_OUT


def test_a_job_that_has_spent_its_gpu_hours_is_stopped() -> None:
    """Its work is saved; Ray's own list says FAILED as the record does."""
    facts = Facts(ray=R.RUNNING, gpu_hours=1.9, **ALIVE)
    assert next_step(RUNNING, facts, None, 2.0) is None
    step = next_step(RUNNING, replace(facts, gpu_hours=2.0), None, 2.0)
    assert step == Stop(Reason.GPU_HOURS_SPENT, "it has spent its max_gpu_hours (2)")
    assert not is_ended_by_ray(Outcome(stopped=True), Reason.GPU_HOURS_SPENT)


def test_a_job_is_released_only_when_driver_and_workers_are_gone() -> None:
    """Only from here may it be queued again: nothing of it may still write."""
    assert next_step(STOPPING, Facts(ray=R.FAILED, num_running=0), None) == Release()
    worker_left = Facts(ray=R.FAILED, num_running=1, in_state_s=1.0)
    assert next_step(STOPPING, worker_left, None) != Release()
    driver_unknown = Facts(ray=None, num_running=0)
    assert next_step(STOPPING, driver_unknown, None) != Release()


def test_a_driver_that_saved_and_stopped_is_ended_by_ray() -> None:
    """Ray's own list says STOPPED of what it ended itself, and SUCCEEDED of what just went."""
    told = replace(STOPPING, reason=Reason.CANCELLED_BY_USER)
    facts = Facts(
        ray=R.RUNNING,
        outcome=Outcome(stopped=True),
        driver_runs=True,
        num_running=1,
        in_state_s=2.0,
    )
    assert next_step(told, facts, None) == Terminate()
    late = replace(told, reason=Reason.TIMED_OUT)
    assert next_step(late, facts, None) is None  # it fails by itself: its exit code says so
    assert next_step(told, replace(facts, driver_runs=False), None) is None
    gone = replace(facts, ray=R.STOPPED, driver_runs=False, num_running=0)
    assert next_step(told, gone, None) == Release()


def test_a_stopping_job_has_its_grace_then_is_pressed_harder() -> None:
    """Cancel must end, also for a driver that hangs."""
    stopping = record(JobState.STOPPING, grace_s=30.0)

    def after(seconds: float) -> object:
        return next_step(stopping, Facts(ray=R.RUNNING, in_state_s=seconds, **ALIVE), None)

    assert after(29.0) is None
    assert after(31.0) == Terminate()
    assert after(60.0) == Kill()


@pytest.mark.parametrize(
    ("reason", "alive", "told", "blamed"),
    [
        (Reason.WORKER_LOST, {"a"}, Reason.NODE_LOST, ("b",)),
        (Reason.DRIVER_LOST, {"a"}, Reason.NODE_LOST, ("b",)),
        (Reason.WORKER_LOST, {"a", "b"}, Reason.WORKER_LOST, ()),
        (Reason.CLUSTER_LOST, set(), Reason.CLUSTER_LOST, ()),
        (Reason.DIVERGED, {"a"}, Reason.DIVERGED, ()),
    ],
)
def test_what_broke_with_its_node_is_put_down_to_that_node(
    reason: Reason, alive: set[str], told: Reason, blamed: tuple[str, ...]
) -> None:
    """Ray tells of a worker that died; that its node did is what a reader needs to know."""
    assert with_lost_nodes(reason, ("a", "b"), alive) is told
    assert blamed_nodes(told, None, ("a", "b"), alive) == blamed


def test_the_node_of_the_rank_that_died_is_blamed_where_the_driver_knows_it() -> None:
    """A gang's other nodes did nothing wrong."""
    outcome = Outcome(reason=Reason.WORKER_LOST, failed_node_ids=("b",))
    assert blamed_nodes(Reason.WORKER_LOST, outcome, ("a", "b"), {"a", "b"}) == ("b",)
    assert blamed_nodes(Reason.WORKER_LOST, None, ("a",), {"a"}) == ("a",)
