"""The records that the beginning and the stopping of an attempt lead to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.lifecycle.attempts import (
    PREEMPT_GRACE_S,
    begun,
    gpu_hours,
    moved_away,
    must_move,
    preempted,
    released,
    stopping,
)
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import (
    JobState,
    Placement,
    Reason,
    ResolvedResources,
)
from tests.support.records import record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESOURCES = ResolvedResources(min_workers=1, max_workers=3, cpus_per_worker=2, gpus_per_worker=0.5)
PLACEMENT = Placement(workers_by_node={"n1": 1, "n2": 2}, cpus_per_worker=2, gpus_per_worker=0.5)
QUEUED = record_of("a", at=NOW, not_before=NOW, avoided_nodes=("n2", "n9"))


def test_an_attempt_begins_with_its_number_its_nodes_and_one_line() -> None:
    """All that `status` and `events` tell of it stands in one record."""
    record = begun(QUEUED, at=NOW, resources=RESOURCES, placement=PLACEMENT, remark=", so")
    assert (record.state, record.attempt, record.not_before) == (JobState.STARTING, 1, None)
    assert (record.resources, record.placement) == (RESOURCES, PLACEMENT)
    assert [(a.number, a.started_at, a.node_ids) for a in record.attempts] == [
        (1, NOW, ("n1", "n2"))
    ]
    assert record.message == (
        "attempt 1 with 3 workers of 2 CPUs and 0.5 GPUs, so, "
        "on n2 again, since it fits in no other way"
    )


def test_a_preempted_job_saves_its_work_and_is_queued_again() -> None:
    """For whom it makes room is told, and it loses no retry."""
    running = begun(QUEUED, at=NOW, resources=RESOURCES, placement=PLACEMENT)
    record = preempted(running.moved_to(JobState.RUNNING, at=NOW), at=NOW, by="b")
    assert (record.state, record.stop_target) == (JobState.STOPPING, JobState.QUEUED)
    assert (record.reason, record.stop_grace_s) == (Reason.PREEMPTED, PREEMPT_GRACE_S)
    assert record.message == "makes room for b"


@pytest.mark.parametrize(
    ("least", "leaving", "moves"),
    [(1, {"n2"}, False), (2, {"n2"}, True), (3, {"n1"}, True), (1, {"n1", "n2"}, True),
     (3, {"n9"}, False), (3, set(), False)],
)  # fmt: skip
def test_a_job_moves_once_too_few_of_its_workers_stay(
    least: int, leaving: set[str], moves: bool
) -> None:
    """A training needs all of them; a fleet that goes on with the rest loses less."""
    resources = replace(RESOURCES, min_workers=least)
    record = begun(QUEUED, at=NOW, resources=resources, placement=PLACEMENT)
    assert must_move(record, leaving) is moves
    assert not must_move(QUEUED, leaving)
    stopping = moved_away(record, at=NOW, leaving=leaving, notice_s=20.0)
    assert not must_move(stopping, leaving)  # it does already
    if leaving == {"n1", "n2"}:
        assert stopping.message.startswith("nodes n1, n2 are being drained, 20 s are left")


def test_gpu_hours_are_those_of_all_attempts_since_the_last_retry() -> None:
    """A job that is preempted over and over must not get its hours anew each time."""
    hour = timedelta(hours=1)
    first = begun(QUEUED, at=NOW, resources=RESOURCES, placement=PLACEMENT)
    assert first.attempts[0].gpus == 1.5
    assert gpu_hours(first, NOW + hour) == 1.5
    ended = replace(first.with_attempt(ended_at=NOW + hour), state=JobState.QUEUED)
    assert gpu_hours(ended, NOW + 9 * hour) == 1.5  # while it waits it holds none
    again = begun(ended, at=NOW + 2 * hour, resources=RESOURCES, placement=PLACEMENT)
    assert gpu_hours(again, NOW + 4 * hour) == 4.5
    assert gpu_hours(replace(again, first_counted_attempt=2), NOW + 4 * hour) == 3.0


DONE = Outcome(succeeded=True, message="all steps", progress=10)
SAVED = Outcome(stopped=True, message="saved", progress=7)
DIVERGED = Outcome(reason=Reason.DIVERGED, message="loss is nan")
LOST = Outcome(reason=Reason.WORKER_LOST, message="a worker died")
_S, _R = JobState, Reason


@pytest.mark.parametrize(
    ("why", "target", "outcome", "ends"),
    [
        # What is done is done, and is not started again: not for room, hours, nodes or a limit.
        (_R.PREEMPTED, _S.QUEUED, DONE, (_S.SUCCEEDED, None, "all steps")),
        (_R.QUEUE_HOURS_SPENT, _S.QUEUED, DONE, (_S.SUCCEEDED, None, "all steps")),
        (_R.TIMED_OUT, _S.FAILED, DONE, (_S.SUCCEEDED, None, "all steps")),
        (_R.DRIVER_LOST, _S.QUEUED, DONE, (_S.SUCCEEDED, None, "all steps")),
        # What its user said holds: the next step of a pipeline must not begin.
        (_R.CANCELLED_BY_USER, _S.CANCELLED, DONE, (_S.CANCELLED, _R.CANCELLED_BY_USER, "why")),
        (_R.PREEMPTED, _S.QUEUED, SAVED, (_S.QUEUED, _R.PREEMPTED, "why")),
        (_R.PREEMPTED, _S.QUEUED, None, (_S.QUEUED, _R.PREEMPTED, "why")),
        # The end of a worker that is pressed for room is not its own fault.
        (_R.PREEMPTED, _S.QUEUED, LOST, (_S.QUEUED, _R.PREEMPTED, "why")),
        (_R.TIMED_OUT, _S.FAILED, DIVERGED, (_S.FAILED, _R.TIMED_OUT, "why")),
    ],
)  # fmt: skip
def test_a_job_becomes_what_it_was_stopped_for_unless_it_finished(
    why: Reason, target: JobState, outcome: Outcome | None, ends: tuple[JobState, Reason, str]
) -> None:
    """A training that ended while it was told to pause waited for a month, and then began again."""
    running = begun(QUEUED, at=NOW, resources=RESOURCES, placement=PLACEMENT)
    running = running.moved_to(JobState.RUNNING, at=NOW).with_attempt(failed_node_ids=("n1",))
    record = released(
        stopping(running, NOW, why, "why", target, 60.0), outcome, at=NOW, in_grace=True
    )
    assert (record.state, record.reason, record.message) == ends
    assert (record.attempts[-1].ended_at, record.attempts[-1].reason) == (NOW, ends[1])
    assert record.attempts[-1].failed_node_ids == (() if record.state is _S.SUCCEEDED else ("n1",))


@pytest.mark.parametrize("in_grace", [True, False])
def test_what_another_attempt_cannot_cure_is_not_queued_again(in_grace: bool) -> None:
    """It would wait for a month, to break in the same way; what is killed is excused."""
    running = begun(QUEUED, at=NOW, resources=RESOURCES, placement=PLACEMENT)
    told = preempted(running.moved_to(JobState.RUNNING, at=NOW), at=NOW, by="b")
    record = released(told, DIVERGED, at=NOW, in_grace=in_grace)
    assert record.state is (JobState.FAILED if in_grace else JobState.QUEUED)
    assert record.reason is (Reason.DIVERGED if in_grace else Reason.PREEMPTED)
    assert ("loss is nan" in record.message) is in_grace
