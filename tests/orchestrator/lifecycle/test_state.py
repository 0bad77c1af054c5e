"""The lifecycle as one table."""

from datetime import UTC, datetime

import pytest

from orchestrator.errors import InvalidTransitionError
from orchestrator.lifecycle.state import ENDED, TRANSITIONS, JobRecord, JobState, Reason
from tests.support.records import record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# What the design promises, written down a second time on purpose.
LEGAL = {
    ("QUEUED", "STARTING"), ("QUEUED", "CANCELLED"), ("QUEUED", "FAILED"),
    ("STARTING", "RUNNING"), ("STARTING", "STOPPING"),
    ("RUNNING", "SUCCEEDED"), ("RUNNING", "STOPPING"),
    ("STOPPING", "QUEUED"), ("STOPPING", "FAILED"), ("STOPPING", "CANCELLED"),
    ("STOPPING", "SUCCEEDED"),
    ("FAILED", "QUEUED"), ("CANCELLED", "QUEUED"), ("SUCCEEDED", "QUEUED"),
}  # fmt: skip


def record(state: JobState) -> JobRecord:
    """Return a record in a state."""
    return record_of("a", at=NOW, state=state)


@pytest.mark.parametrize("start", JobState)
@pytest.mark.parametrize("finish", JobState)
def test_a_job_moves_only_as_the_design_says(start: JobState, finish: JobState) -> None:
    """One move too many is a job that runs twice; one too few is a job that hangs."""
    if (start, finish) in LEGAL:
        assert record(start).moved_to(finish, at=NOW).state is finish
    else:
        with pytest.raises(InvalidTransitionError):
            record(start).moved_to(finish, at=NOW)


def test_a_job_that_has_ended_can_only_be_queued_again() -> None:
    """By its user: `retry`, or `samples repair` for a set whose images were damaged."""
    assert {JobState.FAILED, JobState.CANCELLED, JobState.SUCCEEDED} == ENDED
    assert all(TRANSITIONS[state] == {JobState.QUEUED} for state in ENDED)


def test_what_a_job_stops_for_is_forgotten_once_it_has_stopped() -> None:
    """A stale target would send the next attempt's stop to the wrong place."""
    stopping = record(JobState.RUNNING).moved_to(
        JobState.STOPPING, at=NOW, reason=Reason.PREEMPTED, stop_target=JobState.QUEUED
    )
    assert stopping.stop_target is JobState.QUEUED
    assert stopping.moved_to(JobState.QUEUED, at=NOW).stop_target is None
