"""What a job cost follows from its attempts and the price table; what they lack is unknown."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.lifecycle.cost import UNKNOWN, Prices, cost_of, gpu_hours_by_type
from orchestrator.lifecycle.state import AttemptRecord, JobRecord, JobState
from tests.support.records import record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PRICES = Prices(currency="EUR", per_hour={"H100": 3.0, "A100": 1.5})


def record(*attempts: AttemptRecord) -> JobRecord:
    """A job with such attempts."""
    return record_of(
        "j",
        at=NOW,
        kind="sample",
        state=JobState.RUNNING,
        attempts=attempts,
        first_counted_attempt=len(attempts),
    )


def attempt(hours: float | None, **gpus: float) -> AttemptRecord:
    """An attempt on such GPUs."""
    ended_at = None if hours is None else NOW + hours * HOUR
    return AttemptRecord(
        number=1, started_at=NOW, ended_at=ended_at, gpus=sum(gpus.values()), gpus_by_type=gpus
    )


def test_each_type_has_its_own_price_and_all_attempts_count() -> None:
    """Money that was spent before a retry is spent."""
    job = record(attempt(2.0, H100=4), attempt(None, H100=1, A100=2))
    cost = cost_of([job], PRICES, NOW + HOUR, num_images=5000)
    assert cost is not None
    assert cost.amount == pytest.approx(8 * 3.0 + 3.0 + 2 * 1.5)
    assert cost.per_1000_images == pytest.approx(6.0)
    assert cost.gpu_hours == {"A100": 2.0, "H100": 9.0}
    assert (cost.currency, cost.unpriced) == ("EUR", ())


def test_a_type_without_a_price_makes_the_whole_unknown() -> None:
    """Half of a bill looks like a bill."""
    cost = cost_of([record(attempt(1.0, H100=1, V100=1))], PRICES, NOW, num_images=1000)
    assert cost is not None
    assert (cost.amount, cost.per_1000_images) == (None, None)
    assert cost.unpriced == ("V100",)
    assert cost.gpu_hours == {"H100": 1.0, "V100": 1.0}


def test_gpus_of_attempts_that_kept_no_type_are_unknown() -> None:
    """Attempts of an older version, and nodes whose GPUs Ray does not know."""
    old = replace(attempt(1.0), gpus=2.0)
    assert gpu_hours_by_type(record(old), NOW) == {UNKNOWN: 2.0}
    cost = cost_of([record(old)], PRICES, NOW)
    assert cost is not None
    assert (cost.amount, cost.unpriced) == (None, (UNKNOWN,))


def test_a_job_without_gpus_has_no_cost_rather_than_none_of_it() -> None:
    """Its CPUs cost something that no table tells."""
    assert cost_of([record(attempt(1.0))], PRICES, NOW) is None


def test_jobs_of_a_group_are_added_up() -> None:
    """A sweep is paid for as a whole."""
    cost = cost_of([record(attempt(1.0, H100=1)), record(attempt(1.0, A100=2))], PRICES, NOW)
    assert cost is not None
    assert cost.amount == 6.0
