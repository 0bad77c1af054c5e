"""Which checkpoints are evaluated, and which of them is the best."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.lifecycle.curves import best_step, evaluated_steps, is_evaluated, steps_to_begin
from orchestrator.lifecycle.state import JobState
from tests.support.records import record_of

AT = datetime(2026, 11, 29, tzinfo=UTC)
TRAINING = record_of("t", at=AT, state=JobState.RUNNING)


@pytest.mark.parametrize(
    ("every", "total", "steps"),
    [(4, 10, [4, 8, 10]), (5, 10, [5, 10]), (20, 10, [10]), (1, 2, [1, 2])],
)
def test_multiples_and_the_last_step_are_evaluated(
    every: int, total: int, steps: list[int]
) -> None:
    """A run whose last checkpoint nobody compared would not say what came of it."""
    assert list(evaluated_steps(every, total)) == steps
    assert [s for s in range(1, total + 1) if is_evaluated(s, every, total)] == steps


def test_what_is_committed_and_not_begun_is_begun_in_order() -> None:
    """A checkpoint of a stop in between is none of them."""
    assert steps_to_begin(TRAINING, [12, 8, 5, 4], {8}, 4, 20) == [4, 12]


@pytest.mark.parametrize(
    "changes",
    [
        {"state": JobState.CANCELLED},
        {"state": JobState.STOPPING, "stop_target": JobState.CANCELLED},
    ],
)
def test_nothing_is_begun_for_a_training_that_is_cancelled(changes: dict[str, Any]) -> None:
    """Whoever ends it wants nothing more of it."""
    assert steps_to_begin(replace(TRAINING, **changes), [4], (), 4, 20) == []


def test_a_failed_or_preempted_training_is_still_evaluated() -> None:
    """What it has committed is worth knowing, and perhaps it goes on."""
    for state in (JobState.FAILED, JobState.STOPPING):
        assert steps_to_begin(replace(TRAINING, state=state), [4], (), 4, 20) == [4]


@pytest.mark.parametrize(
    ("measure", "best"), [("kid", 2), ("coverage", 3), ("precision", 3), ("recall", 3)]
)
def test_distances_are_best_where_low_and_shares_where_high(measure: str, best: int) -> None:
    """A best by the wrong end would keep the worst."""
    assert best_step({1: 0.5, 2: 0.1, 3: 0.9}, measure) == best


def test_of_equal_values_the_later_step_is_the_best_and_of_none_nothing() -> None:
    """More training cannot be told from less, and the moving average has moved on."""
    assert best_step({1: 0.1, 2: 0.1, 3: 0.4}, "kid") == 2
    assert best_step({}, "kid") is None
