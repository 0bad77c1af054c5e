"""What follows for a job that has processes, from what is known of them. Pure.

`next_step` looks at a record and at the facts, and answers with one step. The controller takes it
and looks again in its next loop, so that no step waits for another one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.retry import NODE_BLAMING_REASONS
from orchestrator.lifecycle.state import JobRecord, JobState, Reason

TERMINATE_AFTER_S = 5.0
KILL_AFTER_S = 10.0
FINISH_WITHIN_S = 20.0
START_WITHIN_S = 300.0
PENDING_AT_MOST_S = 900.0
DISBELIEVE_RAY_AFTER_S = 60.0
FORGOTTEN_AFTER_S = 120.0
"""How long a process is waited for whose machine is none of the cluster's any more.

Nothing proves its end but time. A Ray that was started anew has no part in it: a node of the Ray of
before ends itself, and with it its workers, once it has not reached its head for 60 s
(`gcs_rpc_server_reconnect_timeout_s`), a driver likewise. And its driver reads the record twice a
second: once that says STOPPING it saves and ends by itself, within the grace that this counts from.
"""
LIMITS = (Reason.TIMED_OUT, Reason.GPU_HOURS_SPENT)
"""Why an attempt is stopped that was allowed no more: the job has failed, its work saved."""
MAY_BE_THE_NODES_END = (Reason.WORKER_LOST, Reason.DRIVER_LOST, Reason.SYSTEM_ERROR)
"""What an attempt may say of its end whose node left before Ray knew."""


class DriverStatus(StrEnum):
    """What the cluster says of an attempt's driver; a hint, never the truth."""

    ABSENT = "ABSENT"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def has_ended(self) -> bool:
        """Whether the driver ran and is over."""
        return self in (DriverStatus.SUCCEEDED, DriverStatus.FAILED, DriverStatus.STOPPED)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of an attempt at one moment.

    Attributes:
        ray: What Ray says of its driver; None if Ray did not answer.
        outcome: What the driver said; None if nothing yet.
        outcome_age_s: Seconds since it said so.
        phase: What the heartbeat shows; None before the first one.
        has_begun: Whether any process of the attempt ever registered itself in the store.
        driver_runs: Whether its driver's process is alive.
        num_running: Its processes that are alive, the driver among them.
        num_unknown: Its processes on machines that nobody can ask, nor call dead.
        running_s: Seconds since the attempt was admitted.
        in_state_s: Seconds since the record came into its state.
        silent_s: Seconds since its driver showed how far it is, or since the record came into its
            state, if it never did.
        ray_message: Why Ray says that the driver failed.
        gpu_hours: What the job was given so far, all attempts that count together.
    """

    ray: DriverStatus | None
    outcome: Outcome | None = None
    outcome_age_s: float = 0.0
    phase: Phase | None = None
    has_begun: bool = False
    driver_runs: bool = False
    num_running: int = 0
    num_unknown: int = 0
    running_s: float = 0.0
    in_state_s: float = 0.0
    silent_s: float = 0.0
    ray_message: str = ""
    gpu_hours: float = 0.0


@dataclass(frozen=True)
class Submit:
    """Hand the attempt to Ray (again: the id makes it one)."""


@dataclass(frozen=True)
class Run:
    """The attempt works: STARTING becomes RUNNING."""


@dataclass(frozen=True)
class Succeed:
    """All is done and its processes are gone."""


@dataclass(frozen=True)
class Fail:
    """The attempt broke: stop what is left of it; the retry policy says what follows."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Stop:
    """Tell the attempt to save its work and to end."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Requeue:
    """The attempt stopped by itself, its work saved: it goes back into the queue."""

    message: str


@dataclass(frozen=True)
class Terminate:
    """Ask Ray to end the driver."""


@dataclass(frozen=True)
class Kill:
    """End the processes that are left."""


@dataclass(frozen=True)
class Release:
    """Its processes are proven gone: STOPPING becomes what it was stopped for."""


Step = Submit | Run | Succeed | Fail | Stop | Requeue | Terminate | Kill | Release


def next_step(
    record: JobRecord,
    facts: Facts,
    max_runtime_s: float | None,
    max_gpu_hours: float | None = None,
) -> Step | None:
    """Return what follows for a job that is STARTING, RUNNING or STOPPING; None is to wait."""
    if record.state is JobState.STOPPING:
        return _while_stopping(record, facts)
    if facts.outcome is not None:
        return _after_outcome(record, facts, facts.outcome)
    broken = _broken(facts)
    if broken is not None:
        return broken
    if record.state is JobState.STARTING and facts.phase not in (None, Phase.STARTING):
        return Run()
    if max_runtime_s is not None and facts.running_s > max_runtime_s:
        return Stop(Reason.TIMED_OUT, f"it ran longer than max_runtime_s ({max_runtime_s:g} s)")
    if max_gpu_hours is not None and facts.gpu_hours >= max_gpu_hours:
        return Stop(Reason.GPU_HOURS_SPENT, f"it has spent its max_gpu_hours ({max_gpu_hours:g})")
    return None


def _broken(facts: Facts) -> Step | None:
    if facts.ray is None or facts.driver_runs:
        return None  # Ray's word is a hint: a driver that is alive is not lost
    if facts.ray is DriverStatus.ABSENT:
        if not facts.has_begun:
            return Submit()
        return Fail(Reason.CLUSTER_LOST, "the Ray cluster that ran it is gone")
    if facts.ray.has_ended:
        detail = f": {facts.ray_message}" if facts.ray_message and not facts.has_begun else ""
        return Fail(Reason.DRIVER_LOST, f"its driver ended without an outcome{detail}")
    # Ray may say for ever that something runs which died while Ray itself was in trouble.
    if facts.has_begun and facts.silent_s > DISBELIEVE_RAY_AFTER_S:
        return Fail(Reason.DRIVER_LOST, "its driver is gone, and Ray has not noticed")
    limit_s = PENDING_AT_MOST_S if facts.ray is DriverStatus.PENDING else START_WITHIN_S
    if not facts.has_begun and facts.in_state_s > limit_s:
        return Fail(Reason.DRIVER_LOST, f"Ray has not started its driver within {limit_s:.0f} s")
    return None


def _after_outcome(record: JobRecord, facts: Facts, outcome: Outcome) -> Step | None:
    if outcome.succeeded:
        if record.state is JobState.STARTING:
            return Run()
        since_s = facts.outcome_age_s - FINISH_WITHIN_S
        # Until then it ships its last lines and leaves Ray by itself.
        return Succeed() if _is_gone(facts, since_s) else _press(facts, since_s)
    if outcome.stopped:
        return Requeue(outcome.message or "it stopped and saved its work")
    return Fail(outcome.reason or Reason.USER_CODE, outcome.message)


def _while_stopping(record: JobRecord, facts: Facts) -> Step | None:
    since_s = facts.in_state_s - record.stop_grace_s
    if _is_gone(facts, since_s):
        return Release()
    has_grace = facts.outcome is None and facts.in_state_s < record.stop_grace_s
    if has_grace and facts.driver_runs:
        return None
    if facts.driver_runs and is_ended_by_ray(facts.outcome, record.reason):
        return Terminate()  # it waits for that
    return _press(facts, since_s)


def is_ended_by_ray(outcome: Outcome | None, reason: str | None) -> bool:
    """Tell whether an attempt's driver lets Ray end it, so that Ray's own list says STOPPED.

    Args:
        outcome: What the driver said.
        reason: Why it was told to stop; None if it was not. What ran too long has failed.
    """
    return outcome is not None and outcome.stopped and reason not in LIMITS


def _press(facts: Facts, since_s: float) -> Step | None:
    """End what does not end by itself, ever harder."""
    if since_s > KILL_AFTER_S and facts.num_running:
        return Kill()
    if since_s > TERMINATE_AFTER_S or facts.outcome is None:
        return Terminate()
    return None


def _is_gone(facts: Facts, since_s: float) -> bool:
    """Tell whether nothing of an attempt runs: after a while its own processes' word is enough.

    A driver that Ray starts later still finds that its attempt is not wanted any more.

    Args:
        facts: What is known.
        since_s: Seconds since it should have ended.
    """
    driver_ended = facts.ray is not None and (
        facts.ray.has_ended or facts.ray is DriverStatus.ABSENT
    )
    if facts.num_running or (facts.num_unknown and since_s <= FORGOTTEN_AFTER_S):
        return False
    return driver_ended or since_s > DISBELIEVE_RAY_AFTER_S


def blamed_nodes(
    reason: Reason, outcome: Outcome | None, nodes: Sequence[str], alive: Collection[str]
) -> tuple[str, ...]:
    """Return the nodes that are to blame for an attempt's end.

    Args:
        reason: Why it ended, as `with_lost_nodes` gives it.
        outcome: What its driver said; None if nothing.
        nodes: The nodes that it was placed on.
        alive: The nodes that the cluster has now.
    """
    if reason is Reason.NODE_LOST and (gone := [node for node in nodes if node not in alive]):
        return tuple(gone)
    if outcome is not None and outcome.failed_node_ids:
        return outcome.failed_node_ids
    alone = reason in NODE_BLAMING_REASONS - {Reason.NODE_LOST}
    return tuple(nodes) if alone and len(nodes) == 1 else ()


def with_lost_nodes(reason: Reason, nodes: Sequence[str], alive: Collection[str]) -> Reason:
    """Return why an attempt ended: NODE_LOST for what broke with its node.

    Args:
        reason: Why, as far as its processes can say.
        nodes: The nodes that it was placed on.
        alive: The nodes that the cluster has now.
    """
    is_gone = any(node not in alive for node in nodes)
    broke = reason in MAY_BE_THE_NODES_END
    return Reason.NODE_LOST if is_gone and broke else reason
