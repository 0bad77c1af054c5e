"""Jobs as the scheduler sees them: what each asks for, and what those that run hold.

All times are seconds since the epoch by the store's clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """What a job asks for.

    Attributes:
        job_id: Its id.
        queue: The queue whose quota it counts against.
        priority: 0..100, the highest first.
        submitted_at: First come, first served within a priority.
        num_workers_min: It does not start with fewer.
        num_workers_max: It takes as many as fit, up to these.
        cpus_per_worker: CPUs of each worker.
        gpus_per_worker: GPUs of each worker.
        max_runtime_s: Seconds after its start at which an attempt is ended; None for no limit.
        preemptible: Whether a job of higher priority may take its place.
        memory_gb_per_worker: Memory of each worker; 0 where it does not count.
        accelerators: Types of GPUs that it may use, the dearest to it first; none for any.
        is_of_one_accelerator: Whether all its workers must have one type of GPU.
        labels: What its nodes must be labelled with, in order of the keys.
        owner: Who submitted it; "" where nobody knows.
    """

    job_id: str
    queue: str = "default"
    priority: int = 50
    submitted_at: float = 0.0
    num_workers_min: int = 1
    num_workers_max: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    max_runtime_s: float | None = None
    preemptible: bool = True
    memory_gb_per_worker: float = 0.0
    accelerators: tuple[str, ...] = ()
    is_of_one_accelerator: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    owner: str = ""


_REQUEST_FIELDS = tuple(entry.name for entry in fields(JobRequest))


def _asked(request: JobRequest) -> dict[str, Any]:
    """Return what is asked for, and nothing that a subclass adds, by the field's name."""
    return {name: getattr(request, name) for name in _REQUEST_FIELDS}


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedJob(JobRequest):
    """A job that wants to start.

    Attributes:
        was_preempted: It had to make room: it is first in line of its priority.
        not_before: It does not start before that time (back-off).
        avoided_nodes: Nodes that broke its attempts. They are used all the same if it would fit
            on the cluster in no other way.
        waits_for: What it needs besides capacity, for a reader; None if nothing.
    """

    was_preempted: bool = False
    not_before: float = 0.0
    avoided_nodes: frozenset[str] = frozenset()
    waits_for: str | None = None

    @classmethod
    def of(
        cls,
        request: JobRequest,
        *,
        was_preempted: bool = False,
        not_before: float = 0.0,
        avoided_nodes: frozenset[str] = frozenset(),
        waits_for: str | None = None,
    ) -> Self:
        """Return a job that waits, from what it asks for; the rest as the attributes say."""
        return cls(
            **_asked(request),
            was_preempted=was_preempted,
            not_before=not_before,
            avoided_nodes=avoided_nodes,
            waits_for=waits_for,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningJob(JobRequest):
    """A job that holds capacity: starting, running or stopping.

    Attributes:
        placement: Node id to number of workers there.
        started_at: When its attempt was admitted.
        progress_since_checkpoint_s: Seconds of work that would be lost with it.
        stopping: It is about to free its capacity, for whatever reason.
        expected_end_at: When it ends at its measured pace; for estimates only.
    """

    placement: Mapping[str, int]
    started_at: float
    progress_since_checkpoint_s: float = 0.0
    stopping: bool = False
    expected_end_at: float | None = None

    @classmethod
    def of(
        cls,
        request: JobRequest,
        *,
        placement: Mapping[str, int],
        started_at: float,
        progress_since_checkpoint_s: float = 0.0,
        stopping: bool = False,
        expected_end_at: float | None = None,
    ) -> Self:
        """Return a job that holds capacity, from what it asks for; the rest as above."""
        return cls(
            **_asked(request),
            placement=placement,
            started_at=started_at,
            progress_since_checkpoint_s=progress_since_checkpoint_s,
            stopping=stopping,
            expected_end_at=expected_end_at,
        )

    @property
    def num_workers(self) -> int:
        """Workers over all nodes."""
        return sum(self.placement.values())

    @property
    def gpus(self) -> float:
        """GPUs over all nodes."""
        return self.num_workers * self.gpus_per_worker

    @property
    def latest_end_at(self) -> float | None:
        """When it is ended at the latest; None without a max_runtime_s."""
        return None if self.max_runtime_s is None else self.started_at + self.max_runtime_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Loan:
    """What a fleet uses on a node beyond what it was given.

    Attributes:
        job_id: The fleet.
        node_id: The node.
        cpus: CPUs of its workers in borrowed room.
        gpus: GPUs likewise.
        memory_gb: Memory likewise.
    """

    job_id: str
    node_id: str
    cpus: float
    gpus: float
    memory_gb: float = 0.0
