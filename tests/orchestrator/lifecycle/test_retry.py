"""When a job is tried again: by cause, with a budget, and not on a node that breaks it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestrator.lifecycle.retry import (
    FINAL_MESSAGES,
    GAVE_WAY,
    GiveUp,
    Restart,
    RetryBudget,
    RetryPolicy,
)
from orchestrator.lifecycle.state import AttemptRecord, Reason

START = datetime(2026, 11, 22, tzinfo=UTC)
BUDGETED = [
    Reason.WORKER_LOST,
    Reason.NODE_LOST,
    Reason.DRIVER_LOST,
    Reason.CLUSTER_LOST,
    Reason.OUT_OF_MEMORY,
    Reason.STORAGE_UNAVAILABLE,
]


def history(
    *ends: tuple[Reason, int], failed_node_ids: tuple[str, ...] = ()
) -> list[AttemptRecord]:
    """Return attempts that ended for these reasons with this much progress."""
    return [
        AttemptRecord(
            number=number,
            started_at=START,
            reason=reason,
            progress=progress,
            failed_node_ids=failed_node_ids,
        )
        for number, (reason, progress) in enumerate(ends, start=1)
    ]


@pytest.mark.parametrize("reason", sorted(FINAL_MESSAGES))
def test_cause_that_another_attempt_cannot_cure_ends_the_job(reason: Reason) -> None:
    """A wrong config that is retried burns GPUs for days (SkyPilot #10203)."""
    decision = RetryPolicy().decide(reason, history((reason, 0)))
    assert isinstance(decision, GiveUp)
    assert decision.message.startswith(reason)


@pytest.mark.parametrize("reason", BUDGETED)
def test_budget_is_used_up_by_failures_without_progress(reason: Reason) -> None:
    """A budget of n means n retries: n + 1 attempts in all."""
    budgets: dict[str, Any] = {reason.lower(): RetryBudget(max_retries=2)}
    policy = RetryPolicy(**budgets)
    assert isinstance(policy.decide(reason, history(*[(reason, 0)] * 2)), Restart)
    decision = policy.decide(reason, history(*[(reason, 0)] * 3))
    assert isinstance(decision, GiveUp)
    assert f"retry.{reason.lower()}.max_retries is 2" in decision.message


def test_each_cause_has_its_own_budget() -> None:
    """Two lost nodes must not use up the patience for a store that is away."""
    policy = RetryPolicy(
        node_lost=RetryBudget(max_retries=2), storage_unavailable=RetryBudget(max_retries=1)
    )
    attempts = history(
        (Reason.NODE_LOST, 0), (Reason.NODE_LOST, 0), (Reason.STORAGE_UNAVAILABLE, 0)
    )
    assert isinstance(policy.decide(Reason.STORAGE_UNAVAILABLE, attempts), Restart)


def test_progress_renews_the_budget() -> None:
    """A long job on a shaky cluster ends as long as each attempt gets further."""
    policy = RetryPolicy(worker_lost=RetryBudget(max_retries=1))
    steps = [(Reason.WORKER_LOST, 100 * n) for n in range(1, 50)]
    assert isinstance(policy.decide(Reason.WORKER_LOST, history(*steps)), Restart)
    stuck = [*steps, (Reason.WORKER_LOST, 4900)]
    assert isinstance(policy.decide(Reason.WORKER_LOST, history(*stuck)), GiveUp)


def test_falling_back_and_catching_up_is_not_progress() -> None:
    """A damaged checkpoint sets a job back; getting to the same step again must not renew."""
    policy = RetryPolicy(worker_lost=RetryBudget(max_retries=2))
    attempts = history(*[(Reason.WORKER_LOST, step) for step in (500, 200, 500)])
    assert isinstance(policy.decide(Reason.WORKER_LOST, attempts), GiveUp)


@pytest.mark.parametrize("reason", sorted(GAVE_WAY))
def test_giving_way_is_free(reason: Reason) -> None:
    """A victim did nothing wrong, however often it has to make room or its queue's month ends."""
    attempts = history(*[(reason, 0)] * 100)
    decision = RetryPolicy().decide(reason, attempts)
    assert isinstance(decision, Restart)
    assert decision.after_s == 0.0


def test_wait_doubles_up_to_its_limit() -> None:
    """A store that comes back must not be met by a storm of restarts."""
    budget = RetryBudget(backoff_s=5.0, backoff_factor=2.0, max_backoff_s=60.0)
    assert [budget.wait_s(n) for n in range(6)] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


@given(
    backoff_s=st.floats(0, 1e4),
    backoff_factor=st.floats(1, 100),
    max_backoff_s=st.floats(0, 1e6),
    num_retries=st.integers(0, 10**9),
)
def test_wait_is_never_over_its_limit(
    backoff_s: float, backoff_factor: float, max_backoff_s: float, num_retries: int
) -> None:
    """The power overflows for a long history; the wait must stay a number of seconds."""
    budget = RetryBudget(
        backoff_s=backoff_s, backoff_factor=backoff_factor, max_backoff_s=max_backoff_s
    )
    wait_s = budget.wait_s(num_retries)
    assert 0 <= wait_s <= max_backoff_s
    assert budget.wait_s(num_retries + 1) >= wait_s * (1 - 1e-9)


def test_node_that_broke_three_attempts_is_avoided() -> None:
    """A broken GPU otherwise takes the job again and again, as the freest node there is."""
    twice = history(*[(Reason.WORKER_LOST, 0)] * 2, failed_node_ids=("node-a",))
    decision = RetryPolicy().decide(Reason.WORKER_LOST, twice)
    assert isinstance(decision, Restart)
    assert decision.avoid_nodes == ()
    thrice = history(*[(Reason.NODE_LOST, 0)] * 3, failed_node_ids=("node-b", "node-a"))
    decision = RetryPolicy().decide(Reason.NODE_LOST, thrice)
    assert isinstance(decision, Restart)
    assert decision.avoid_nodes == ("node-a", "node-b")
    assert "node-a, node-b" in decision.message


def test_node_is_not_blamed_for_what_it_did_not_do() -> None:
    """A store that was away three times says nothing about the node that noticed."""
    attempts = history(*[(Reason.STORAGE_UNAVAILABLE, 0)] * 3, failed_node_ids=("node-a",))
    decision = RetryPolicy().decide(Reason.STORAGE_UNAVAILABLE, attempts)
    assert isinstance(decision, Restart)
    assert decision.avoid_nodes == ()


def test_reason_of_the_last_attempt_is_the_one_given() -> None:
    """The decision is made before the reason is written to the attempt's record."""
    running = [AttemptRecord(number=1, started_at=START)]
    assert isinstance(RetryPolicy().decide(Reason.WORKER_LOST, running), Restart)


@pytest.mark.parametrize("reason", [Reason.WAITING_FOR_CAPACITY, Reason.RETRIED_BY_USER])
def test_reason_that_ends_no_attempt_is_refused(reason: Reason) -> None:
    """Asking for it is a mistake of the caller, which a default answer would hide."""
    with pytest.raises(ValueError, match=reason):
        RetryPolicy().decide(reason, [])


def test_policy_is_read_from_a_job_file() -> None:
    """The budgets are settable in the spec, and a typo in them is an error."""
    adapter = TypeAdapter(RetryPolicy)
    policy = adapter.validate_python({"worker_lost": {"max_retries": 9}})
    assert policy == RetryPolicy(worker_lost=RetryBudget(max_retries=9))
    with pytest.raises(ValidationError, match=r"worker_lost\.max_retry"):
        adapter.validate_python({"worker_lost": {"max_retry": 9}})
    with pytest.raises(ValidationError, match="max_retries must be a number of at least 0"):
        adapter.validate_python({"worker_lost": {"max_retries": -1}})
