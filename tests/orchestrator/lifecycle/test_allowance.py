"""GPU-hours of a queue by calendar month: what counts when, and who waits for the next one."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.lifecycle.allowance import (
    Usage,
    hours_by_month,
    month_of,
    must_pause,
    next_month,
    paused,
    spent_queues,
)
from orchestrator.lifecycle.state import AttemptRecord, JobRecord, JobState, Reason
from tests.support.records import record_of

NOVEMBER = datetime(2026, 11, 30, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def attempt(
    begin: datetime, hours: float | None, gpus: float = 2.0, number: int = 1
) -> AttemptRecord:
    """An attempt with two GPUs."""
    ended_at = None if hours is None else begin + hours * HOUR
    return AttemptRecord(number=number, started_at=begin, ended_at=ended_at, gpus=gpus)


def record(
    *attempts: AttemptRecord, state: JobState = JobState.RUNNING, queue: str = "team"
) -> JobRecord:
    """A job of a queue."""
    return record_of("j", at=NOVEMBER, queue=queue, state=state, attempts=attempts)


@pytest.mark.parametrize(
    ("at", "begins"),
    [
        (NOVEMBER, datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2028, 2, 29, 23, 59, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_the_next_month_begins_at_its_first_moment(at: datetime, begins: datetime) -> None:
    """December has the next year behind it, and February 28 or 29 days."""
    assert next_month(at) == begins


def test_an_attempt_over_midnight_of_the_first_counts_for_both_months() -> None:
    """Else a job that was begun in time would take its hours along into the new month."""
    hours = dict(hours_by_month(attempt(NOVEMBER, 10), NOVEMBER))
    assert hours == {"2026-11": 8.0, "2026-12": 12.0}
    three = dict(hours_by_month(attempt(NOVEMBER, None), datetime(2027, 1, 2, tzinfo=UTC)))
    assert three == {"2026-11": 8.0, "2026-12": 31 * 48.0, "2027-01": 48.0}


def test_each_attempt_counts_once() -> None:
    """Ended jobs come by again in every round, and retried ones months later."""
    now = NOVEMBER + 2 * HOUR
    ended = record(attempt(NOVEMBER, 1), state=JobState.SUCCEEDED)
    usage = Usage().with_ended([ended], now)
    assert usage.used([], now) == {"team": 2.0}
    assert usage.with_ended([ended], now) is usage
    again = record(attempt(NOVEMBER, 1), attempt(NOVEMBER + HOUR, 1, number=2))
    assert usage.with_ended([again], now).used([], now) == {"team": 4.0}


def test_an_end_that_is_seen_late_counts_all_the_same_and_once() -> None:
    """A clock that was set back a second, or a lost answer, would give GPU-hours away."""
    now = NOVEMBER + 2 * HOUR
    first, late = record(attempt(NOVEMBER, 1)), record(attempt(NOVEMBER, 1 - 1 / 3600, number=2))
    usage = Usage().with_ended([first], now).with_ended([late], now)
    assert usage.used([], now)["team"] == pytest.approx(4.0, abs=0.001)
    assert usage.counted_until == NOVEMBER + HOUR
    assert usage.with_ended([first, late], now) is usage


def test_a_job_made_anew_under_its_old_id_counts_anew() -> None:
    """Its first attempt is another one than that of the job which was deleted."""
    now = NOVEMBER + 2 * HOUR
    usage = Usage().with_ended([record(attempt(NOVEMBER, 1))], now)
    anew = record(attempt(NOVEMBER + HOUR, 0.1))
    assert usage.with_ended([anew], now).used([], now)["team"] == pytest.approx(2.2)


def test_an_account_without_names_counts_nothing_twice() -> None:
    """An earlier version kept the last end alone."""
    now = NOVEMBER + 2 * HOUR
    earlier = Usage(months={"2026-11": {"team": 2.0}}, counted_until=NOVEMBER + HOUR)
    assert earlier.with_ended([record(attempt(NOVEMBER, 1))], now) is earlier


def test_an_attempt_that_runs_counts_up_to_now_and_not_twice_when_it_ends() -> None:
    """A limit that counts ended attempts alone would hold nobody who runs for a month."""
    now = NOVEMBER + 3 * HOUR
    assert Usage().used([record(attempt(NOVEMBER, None))], now) == {"team": 6.0}
    ended = record(attempt(NOVEMBER, 3), state=JobState.QUEUED)
    usage = Usage().with_ended([ended], now)
    assert usage.used([ended], now) == {"team": 6.0}


def test_a_new_month_begins_at_nothing() -> None:
    """The whole point: the queue goes on by itself."""
    usage = Usage(months={"2026-11": {"team": 50.0}})
    limits = {"team": 50.0, "other": 1.0}
    spent = spent_queues(limits, usage.used([], NOVEMBER), NOVEMBER)
    assert set(spent) == {"team"}
    assert "2026-12-01" in spent["team"]
    assert "its 50 GPU-hours of 2026-11" in spent["team"]
    later = next_month(NOVEMBER)
    assert month_of(later) == "2026-12"
    assert spent_queues(limits, usage.used([], later), later) == {}


def test_only_jobs_that_hold_gpus_for_the_queue_pause() -> None:
    """CPUs are in no allowance."""
    spent = {"team": "the month that begins 2026-12-01"}
    assert must_pause(record(attempt(NOVEMBER, None)), spent)
    assert not must_pause(record(attempt(NOVEMBER, None, gpus=0)), spent)
    assert not must_pause(record(attempt(NOVEMBER, None), queue="other"), spent)
    assert not must_pause(record(attempt(NOVEMBER, None), state=JobState.STOPPING), spent)


def test_who_pauses_has_time_for_a_checkpoint_and_queues_again() -> None:
    """Nothing that was computed is lost with the month."""
    stopped = paused(record(attempt(NOVEMBER, None)), at=NOVEMBER, why="the next month")
    assert (stopped.state, stopped.stop_target) == (JobState.STOPPING, JobState.QUEUED)
    assert stopped.reason is Reason.QUEUE_HOURS_SPENT
    assert stopped.stop_grace_s >= 60
    assert stopped.message == "it saves its work and waits for the next month"
