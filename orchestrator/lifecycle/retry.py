"""When a job whose attempt ended is tried again, after how long, and without which nodes.

A cause that another attempt can cure has a budget of its own and a back-off; progress renews all
budgets. A wrong input, a loss that diverged, an error in the code and a time-out are not cured by
trying again and end the job. Pure: no clock, no randomness.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from orchestrator.lifecycle.state import AttemptRecord, Reason

_FORBID_EXTRA: dict[str, object] = {"extra": "forbid"}

FINAL_MESSAGES: dict[Reason, str] = {
    Reason.BAD_INPUT: "its input is wrong: fix it and submit again",
    Reason.DIVERGED: "the loss is not finite: lower the learning rate and submit again",
    Reason.USER_CODE: "the code raised an error: see `ddpmctl logs`",
    Reason.TIMED_OUT: "it ran longer than max_runtime_s",
    Reason.GPU_HOURS_SPENT: "`ddpmctl retry` gives it as many again",
    Reason.CANCELLED_BY_USER: "it was cancelled",
}
"""The message of a job that ends for a reason that another attempt cannot cure."""

BUDGETS: dict[Reason, str] = {
    Reason.WORKER_LOST: "worker_lost",
    Reason.NODE_LOST: "node_lost",
    Reason.DRIVER_LOST: "driver_lost",
    Reason.CLUSTER_LOST: "cluster_lost",
    Reason.OUT_OF_MEMORY: "out_of_memory",
    Reason.STORAGE_UNAVAILABLE: "storage_unavailable",
    Reason.SYSTEM_ERROR: "system_error",
}
"""The field of `RetryPolicy` that says how often each cause is answered with another attempt."""

ENDS_NO_ATTEMPT = frozenset(
    {
        Reason.WAITING_FOR_CAPACITY,
        Reason.WAITING_FOR_MODEL,
        Reason.WAITING_FOR_SMOKE,
        Reason.RETRIED_BY_USER,
        Reason.REPAIRED_BY_USER,
    }
)
"""Reasons of jobs that wait."""

GAVE_WAY = frozenset({Reason.PREEMPTED, Reason.QUEUE_HOURS_SPENT})
"""Ends of an attempt that was asked to save and stop: its job is first in line of its priority."""

NODE_BLAMING_REASONS = frozenset(
    {
        Reason.WORKER_LOST,
        Reason.NODE_LOST,
        Reason.DRIVER_LOST,
        Reason.OUT_OF_MEMORY,
        Reason.SYSTEM_ERROR,
    }
)
"""Ends of an attempt that may be the fault of the node where it broke."""


@dataclass(frozen=True, kw_only=True)
class RetryBudget:
    """How often one cause is answered with another attempt, and how long that one waits.

    Attributes:
        max_retries: Retries without progress between them; 0 for none.
        backoff_s: Seconds before the first retry.
        backoff_factor: The wait grows by it from retry to retry.
        max_backoff_s: The longest wait.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    max_retries: int = 5
    backoff_s: float = 5.0
    backoff_factor: float = 2.0
    max_backoff_s: float = 300.0

    def __post_init__(self) -> None:
        for name, lowest in (
            ("max_retries", 0),
            ("backoff_s", 0),
            ("backoff_factor", 1),
            ("max_backoff_s", 0),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= lowest):
                raise ValueError(f"{name} must be a number of at least {lowest}, not {value!r}")

    def wait_s(self, num_earlier_retries: int) -> float:
        """Return the seconds to wait before a retry, exponential in the retries before it."""
        try:
            wait_s = self.backoff_s * float(self.backoff_factor) ** num_earlier_retries
        except OverflowError:
            wait_s = self.max_backoff_s if self.backoff_s > 0.0 else 0.0
        return min(wait_s, self.max_backoff_s)


@dataclass(frozen=True)
class Restart:
    """The job is queued again.

    Attributes:
        after_s: Seconds that it waits before it may start.
        avoid_nodes: Nodes that it keeps away from, sorted.
        message: One line for a reader.
    """

    after_s: float
    avoid_nodes: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True)
class GiveUp:
    """The job has failed.

    Attributes:
        message: One line that says why no further attempt is made.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The budget of each cause; being preempted is free.

    Attributes:
        worker_lost: A worker process died.
        node_lost: A node left the cluster.
        driver_lost: The attempt's driver died.
        cluster_lost: All of Ray died or was restarted.
        out_of_memory: A worker had too little memory; a training that took no step yet then
            computes half as many images at a time, others are seldom cured by trying again.
        storage_unavailable: The store did not answer for long; patience helps.
        system_error: Ray, the network, a disk or another part of the system failed.
        avoid_node_after: Attempts that a node breaks before the job avoids it.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    worker_lost: RetryBudget = RetryBudget()
    node_lost: RetryBudget = RetryBudget()
    driver_lost: RetryBudget = RetryBudget()
    cluster_lost: RetryBudget = RetryBudget(max_retries=10)
    out_of_memory: RetryBudget = RetryBudget(max_retries=2, backoff_s=30.0)
    storage_unavailable: RetryBudget = RetryBudget(max_retries=20, backoff_s=10.0)
    system_error: RetryBudget = RetryBudget()
    avoid_node_after: int = 3

    def __post_init__(self) -> None:
        if self.avoid_node_after < 1:
            raise ValueError(f"avoid_node_after must be at least 1, not {self.avoid_node_after!r}")

    def decide(self, reason: Reason, attempts: Sequence[AttemptRecord]) -> Restart | GiveUp:
        """Return whether a job whose last attempt ended for `reason` gets another one.

        Args:
            reason: Why the last attempt ended.
            attempts: All attempts since the job was submitted or retried by a user, oldest
                first. The last one's own reason is taken from `reason`.

        Raises:
            ValueError: `reason` is not a way in which an attempt ends.
        """
        if reason in FINAL_MESSAGES:
            return GiveUp(f"{reason}: {FINAL_MESSAGES[reason]}")
        avoided = self._avoided_nodes(reason, attempts)
        if reason in GAVE_WAY:
            return Restart(0.0, avoided, f"{reason.lower()}: first in line of its priority")
        budget = self._budget(reason)
        num_failures = _failures_since_progress(reason, attempts)
        if num_failures > budget.max_retries:
            return GiveUp(
                f"{reason}: {num_failures} attempts without progress, "
                f"retry.{BUDGETS[reason]}.max_retries is {budget.max_retries}"
            )
        after_s = budget.wait_s(num_failures - 1)
        message = f"{reason}: retry {num_failures} of {budget.max_retries} in {after_s:g} s"
        if avoided:
            message += f", without the nodes {', '.join(avoided)}"
        return Restart(after_s, avoided, message)

    def _budget(self, reason: Reason) -> RetryBudget:
        if reason not in BUDGETS:
            raise ValueError(f"no attempt ends for the reason {reason}")
        budget: RetryBudget = getattr(self, BUDGETS[reason])
        return budget

    def _avoided_nodes(self, reason: Reason, attempts: Sequence[AttemptRecord]) -> tuple[str, ...]:
        broken: Counter[str] = Counter()
        for attempt, why in _with_reasons(reason, attempts):
            if why in NODE_BLAMING_REASONS:
                broken.update(set(attempt.failed_node_ids))
        return tuple(sorted(n for n, count in broken.items() if count >= self.avoid_node_after))


def _with_reasons(
    reason: Reason, attempts: Sequence[AttemptRecord]
) -> list[tuple[AttemptRecord, Reason | None]]:
    """Pair each attempt with why it ended; the last one's record may not hold it yet."""
    pairs = [(attempt, attempt.reason) for attempt in attempts]
    if pairs:
        pairs[-1] = (attempts[-1], reason)
    return pairs


def _failures_since_progress(reason: Reason, attempts: Sequence[AttemptRecord]) -> int:
    """Count the attempts that ended for `reason` since one got further than all before it."""
    furthest = 0
    num_failures = 0
    for attempt, why in _with_reasons(reason, attempts):
        if attempt.progress > furthest:
            furthest = attempt.progress
            num_failures = 0
        num_failures += why is reason
    return max(num_failures, 1)
