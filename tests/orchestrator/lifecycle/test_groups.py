"""What follows for a group of jobs, decided from its children alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.lifecycle.groups import ChildView, next_children, next_records, summary
from orchestrator.lifecycle.state import JobRecord, JobState, Reason
from tests.support.records import record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER = NOW - timedelta(seconds=60)


def record(state: JobState | str, job_id: str = "g", **fields: object) -> JobRecord:
    """Return the record of a job in a state."""
    known = {"kind": "train", "name": "g", "queue": "default", "priority": 50, "attempt": 1}
    return record_of(job_id, at=EARLIER, state=JobState(state), **{**known, **fields})


def child(step: str, state: str | None = None, *needs: str, **fields: object) -> ChildView:
    """Return a child in a state; None is one that is not created."""
    seen = record(state, step, **fields) if state else None
    return ChildView(step=step, job_id=step, needs=needs, record=seen)


def starts(group: JobRecord, children: list[ChildView], at_once: int | None = None) -> list[str]:
    """Return the steps that are started."""
    return [view.step for view in next_children(group, children, at_once)]


RUNNING = record("RUNNING")


def test_a_step_is_created_once_all_that_it_needs_have_succeeded() -> None:
    """A sample step must find its model."""
    chain = [child("a", "RUNNING"), child("b", None, "a"), child("c", None, "a", "b")]
    assert starts(RUNNING, chain) == []
    chain[0] = child("a", "SUCCEEDED")
    assert starts(RUNNING, chain) == ["b"]
    chain[1] = child("b", "SUCCEEDED", "a")
    assert starts(RUNNING, chain) == ["c"]


def test_no_more_children_live_than_were_allowed() -> None:
    """A sweep must be able to leave room for others."""
    runs = [child("1", "SUCCEEDED"), child("2", "QUEUED"), child("3"), child("4"), child("5")]
    assert starts(RUNNING, runs) == ["3", "4", "5"]
    assert starts(RUNNING, runs, 3) == ["3", "4"]
    assert starts(RUNNING, runs, 1) == []


@pytest.mark.parametrize("state", ["QUEUED", "STOPPING", "CANCELLED", "FAILED", "SUCCEEDED"])
def test_nothing_is_created_unless_the_group_goes_on(state: str) -> None:
    """After `cancel` no child may appear."""
    assert starts(record(state), [child("a")]) == []


def test_a_retry_starts_what_broke_before_it_and_nothing_that_broke_after_it() -> None:
    """One retry is one try; done children stay done."""
    group = replace(RUNNING, retried_at=NOW)
    later = replace(record("FAILED", "d"), changed_at=NOW + timedelta(seconds=1))
    runs = [
        child("a", "SUCCEEDED"),
        child("b", "FAILED"),
        child("c", "CANCELLED"),
        ChildView(step="d", job_id="d", record=later),
        child("e", None, "b"),
    ]
    assert starts(group, runs) == ["b", "c"]
    assert starts(RUNNING, runs) == []


def test_a_group_starts_in_a_new_round_and_runs_once_a_child_has_begun() -> None:
    """Its states say what a job's states say."""
    queued = record("QUEUED", attempt=1)
    (starting,) = next_records(queued, [child("a")], "steps", NOW)
    assert (starting.state, starting.attempt) == (JobState.STARTING, 2)
    assert next_records(starting, [child("a", "QUEUED")], "steps", NOW) == []
    (running,) = next_records(starting, [child("a", "STARTING")], "steps", NOW)
    assert running.state is JobState.RUNNING


def test_a_group_has_succeeded_when_all_of_it_has() -> None:
    """And not before."""
    (done,) = next_records(RUNNING, [child("a", "SUCCEEDED"), child("b", "SUCCEEDED")], "runs", NOW)
    assert (done.state, done.message) == (JobState.SUCCEEDED, "2 of 2 runs done")


def test_a_group_goes_on_while_anything_of_it_lives_or_can_start() -> None:
    """A sweep's other runs are worth having."""
    for other in (child("b", "RUNNING"), child("b")):
        (told,) = next_records(RUNNING, [child("a", "FAILED"), other], "runs", NOW)
        assert told.state is JobState.RUNNING
        assert told.message == "0 of 2 runs done; a failed"


def test_a_group_fails_for_the_reason_of_its_child() -> None:
    """Whoever reads the group learns which step and why."""
    failed = child("a", "FAILED", reason=Reason.DIVERGED, message="the loss is NaN")
    moved = next_records(RUNNING, [failed, child("b", None, "a")], "steps", NOW)
    assert [r.state for r in moved] == [JobState.STOPPING, JobState.FAILED]
    assert moved[-1].reason is Reason.DIVERGED
    assert moved[-1].message == "a failed (0 of 2 steps done): the loss is NaN"


def test_a_child_that_was_cancelled_by_itself_leaves_its_group_cancelled() -> None:
    """Nothing failed, and not all is done."""
    moved = next_records(
        RUNNING, [child("a", "SUCCEEDED"), child("b", "CANCELLED", "a")], "steps", NOW
    )
    assert moved[-1].state is JobState.CANCELLED
    assert "b was cancelled" in moved[-1].message


def test_several_children_are_told_in_the_plural() -> None:
    """It read "b, c was cancelled", as if one of them had been left out."""
    children = [child("a", "SUCCEEDED"), child("b", "CANCELLED"), child("c", "CANCELLED")]
    (*_, moved) = next_records(RUNNING, children, "steps", NOW)
    assert "b, c were cancelled" in moved.message
    assert "b, c were cancelled" in summary(moved, children, "steps")


def test_a_cancelled_group_ends_when_its_children_have() -> None:
    """CANCELLED means that nothing of it runs."""
    stopping = replace(record("STOPPING"), stop_target=JobState.CANCELLED)
    assert next_records(stopping, [child("a", "STOPPING"), child("b")], "steps", NOW) == []
    (ended,) = next_records(stopping, [child("a", "CANCELLED"), child("b")], "steps", NOW)
    assert ended.state is JobState.CANCELLED


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "SUCCEEDED"])
def test_a_group_lives_again_when_a_child_is_retried_by_itself(state: str) -> None:
    """FAILED would not be true of it any more; children that nobody retried stay as they are."""
    children = [child("a", "QUEUED", reason=Reason.RETRIED_BY_USER), child("b", "FAILED")]
    moved = next_records(record(state), children, "steps", NOW)
    assert [r.state for r in moved] == [JobState.QUEUED, JobState.STARTING]
    assert moved[-1].attempt == 2
    assert starts(moved[-1], children) == []
    assert next_records(record(state), [child("a", "FAILED")], "steps", NOW) == []


def test_a_job_that_has_taken_a_childs_id_is_not_taken_for_the_child() -> None:
    """Its success would be a lie about the group."""
    taken = replace(child("a", "SUCCEEDED"), is_foreign=True)
    moved = next_records(RUNNING, [taken, child("b", None, "a")], "steps", NOW)
    assert (moved[-1].state, moved[-1].reason) == (JobState.FAILED, Reason.BAD_INPUT)
    assert starts(replace(RUNNING, retried_at=NOW), [taken]) == []


def test_a_summary_says_who_waits_for_whom() -> None:
    """`status` and `list` show it."""
    children = [child("train", "RUNNING"), child("sample", None, "train")]
    assert summary(RUNNING, children, "steps") == "0 of 2 steps done; sample waits for train"
