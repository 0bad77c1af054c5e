"""What a job can be, which moves are legal, and the record that holds it.

The state says what, the reason says why. `TRANSITIONS` is the only place that knows the legal
moves; a record moves through `JobRecord.moved_to` and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Self, TypedDict, Unpack

from orchestrator.errors import InvalidTransitionError
from orchestrator.lifecycle.model import ResolvedModel

GROUP_KINDS = ("pipeline", "sweep")
"""Kinds of jobs that are made of other jobs and have no processes of their own."""


class JobState(StrEnum):
    """What a job is."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def has_ended(self) -> bool:
        """Whether the job stays as it is unless somebody retries it."""
        return self in ENDED

    @property
    def has_processes(self) -> bool:
        """Whether processes of the job may be alive."""
        return self in (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)


class Reason(StrEnum):
    """Why a job is what it is."""

    WAITING_FOR_CAPACITY = "WAITING_FOR_CAPACITY"
    WAITING_FOR_MODEL = "WAITING_FOR_MODEL"
    WAITING_FOR_SMOKE = "WAITING_FOR_SMOKE"
    PREEMPTED = "PREEMPTED"
    WORKER_LOST = "WORKER_LOST"
    NODE_LOST = "NODE_LOST"
    DRIVER_LOST = "DRIVER_LOST"
    CLUSTER_LOST = "CLUSTER_LOST"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    SYSTEM_ERROR = "SYSTEM_ERROR"
    DIVERGED = "DIVERGED"
    BAD_INPUT = "BAD_INPUT"
    USER_CODE = "USER_CODE"
    TIMED_OUT = "TIMED_OUT"
    GPU_HOURS_SPENT = "GPU_HOURS_SPENT"
    QUEUE_HOURS_SPENT = "QUEUE_HOURS_SPENT"
    CANCELLED_BY_USER = "CANCELLED_BY_USER"
    RETRIED_BY_USER = "RETRIED_BY_USER"
    REPAIRED_BY_USER = "REPAIRED_BY_USER"


class Lending(StrEnum):
    """What a fleet may do with room beyond its placement."""

    KEEP = "keep"  # it takes no more, and keeps what it has
    MORE = "more"  # it may take what is free
    BACK = "back"  # it gives back what it has


_S = JobState
ENDED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.STARTING, _S.CANCELLED, _S.FAILED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.STOPPING}),
    # Only here are a job's processes proven gone, so only from here may it be queued again. What
    # was told to save and stop may have been so far that it finished instead.
    _S.STOPPING: frozenset({_S.QUEUED, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.FAILED: frozenset({_S.QUEUED}),
    _S.CANCELLED: frozenset({_S.QUEUED}),
    # By `samples repair` alone, when images that were committed are damaged or gone.
    _S.SUCCEEDED: frozenset({_S.QUEUED}),
}


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """What one attempt of a job came to.

    Attributes:
        number: 1 for the first.
        started_at: When it was admitted, by the store's clock.
        ended_at: When its processes were proven gone; None while it runs.
        reason: Why it ended; None while it runs and when it succeeded.
        progress: Steps in the last committed checkpoint, or images in committed shards.
        node_ids: Ray nodes that it ran on.
        failed_node_ids: Nodes that are to blame for its end.
        gpus: GPUs that it was given, over all nodes.
        gpus_by_type: The same by type of GPU as Ray calls it; without those of unknown type.
    """

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    reason: Reason | None = None
    progress: int = 0
    node_ids: tuple[str, ...] = ()
    failed_node_ids: tuple[str, ...] = ()
    gpus: float = 0.0
    gpus_by_type: Mapping[str, float] = field(default_factory=dict)


class AttemptChanges(TypedDict, total=False):
    """What of an attempt's entry changes while it goes on and when it ends."""

    ended_at: datetime | None
    reason: Reason | None
    progress: int
    failed_node_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What an attempt was given; fixed at the first admission where it changes bits.

    Attributes:
        workers_by_node: Ray node id to the number of workers there.
        cpus_per_worker: CPUs, and so threads, of each worker.
        gpus_per_worker: GPUs of each worker.
        memory_gb_per_worker: Memory of each worker, in GB of 10^9 bytes; 0 where it isn't counted.
    """

    workers_by_node: Mapping[str, int]
    cpus_per_worker: int
    gpus_per_worker: float
    memory_gb_per_worker: float = 0.0

    @property
    def num_workers(self) -> int:
        """Workers over all nodes."""
        return sum(self.workers_by_node.values())


@dataclass(frozen=True, kw_only=True)
class ResolvedResources:
    """What a job asks the cluster for, once "auto" has been resolved; fixed at first admission.

    Attributes:
        min_workers: It does not start with fewer.
        max_workers: It takes no more.
        cpus_per_worker: CPUs of each worker.
        gpus_per_worker: GPUs of each worker.
        memory_gb_per_worker: Memory of each worker, in GB of 10^9 bytes; 0 where it isn't counted.
        accelerator: The type of GPU that its first attempt fixed; "" for none.
    """

    min_workers: int
    max_workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    memory_gb_per_worker: float = 0.0
    accelerator: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What happened to a job so far, as the store holds it.

    Attributes:
        job_id: Its id.
        kind: "train", "sample", ...
        name: Its name; several jobs may share one.
        queue: The queue whose quota it counts against.
        priority: 0..100.
        state: What it is.
        reason: Why it is that.
        message: One line for a reader, or "".
        submitted_at: When it was submitted, by the store's clock like all times here.
        changed_at: When it came into this state.
        not_before: No attempt starts before that time (back-off).
        stop_target: While STOPPING: what it becomes once its processes are gone.
        stop_grace_s: While STOPPING: the time that it has to save its work.
        avoided_nodes: Nodes that broke its attempts.
        first_counted_attempt: Attempts before it do not count against the retry budgets.
        attempt: Number of the current or last attempt; 0 before the first. A group, which has no
            attempts, counts its rounds here: one more with each retry.
        attempts: One entry an attempt, oldest first.
        resources: What it asks the cluster for, fixed at the first admission.
        placement: What the current or last attempt was given.
        lending: What a fleet may do with room beyond that.
        model: The checkpoint that the job reads, resolved once; None until then and where it reads
            none.
        parent: The group that it belongs to; "" for none.
        step: Its name within that group.
        owner: Who submitted it; "" where nobody knows.
        retried_at: When a user last asked for it to be tried again.
        deleted_at: When its deletion began; nothing brings it back from there.
        handled_requests: Keys of the inbox that this record already answers.
        fence: Fencing number of the orchestrator that wrote this.
    """

    job_id: str
    kind: str
    name: str
    queue: str
    priority: int
    state: JobState
    submitted_at: datetime
    changed_at: datetime
    reason: Reason | None = None
    message: str = ""
    not_before: datetime | None = None
    stop_target: JobState | None = None
    stop_grace_s: float = 0.0
    avoided_nodes: tuple[str, ...] = ()
    first_counted_attempt: int = 1
    attempt: int = 0
    attempts: tuple[AttemptRecord, ...] = ()
    resources: ResolvedResources | None = None
    placement: Placement | None = None
    lending: Lending = Lending.KEEP
    model: ResolvedModel | None = None
    parent: str = ""
    step: str = ""
    owner: str = ""
    retried_at: datetime | None = None
    deleted_at: datetime | None = None
    handled_requests: tuple[str, ...] = ()
    fence: int = 0

    def moved_to(
        self,
        state: JobState,
        *,
        at: datetime,
        reason: Reason | None = None,
        message: str = "",
        stop_target: JobState | None = None,
        stop_grace_s: float = 0.0,
    ) -> Self:
        """Return the record in another state.

        Args:
            state: The new state.
            at: The time of the move, by the store's clock.
            reason: Why.
            message: One line for a reader.
            stop_target: What follows STOPPING; needed for that state alone.
            stop_grace_s: Time to save the work in, for STOPPING alone.

        Raises:
            InvalidTransitionError: `TRANSITIONS` does not hold the move.
        """
        if state not in TRANSITIONS[self.state]:
            raise InvalidTransitionError(self.job_id, self.state, state)
        return replace(
            self,
            state=state,
            changed_at=at,
            reason=reason,
            message=message,
            stop_target=stop_target if state is JobState.STOPPING else None,
            stop_grace_s=stop_grace_s if state is JobState.STOPPING else 0.0,
        )

    def with_attempt(self, **changes: Unpack[AttemptChanges]) -> Self:
        """Return the record with the last attempt's entry changed."""
        *earlier, last = self.attempts
        return replace(self, attempts=(*earlier, replace(last, **changes)))
