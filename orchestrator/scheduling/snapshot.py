"""What the scheduler sees and what it answers: nodes, jobs, quotas, and the two actions.

All times are seconds since the epoch by the store's clock. CPUs and GPUs are numbers as Ray
counts them, fractions allowed; memory is in GB of 10^9 bytes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeCapacity:
    """What a node has, and what of it nobody uses.

    Attributes:
        node_id: Its Ray id.
        cpus: CPUs that it has.
        gpus: GPUs that it has.
        free_cpus: CPUs that neither our running or stopping jobs nor anybody else holds.
        free_gpus: GPUs likewise.
        unplaced_cpus: CPUs that no placement of ours names: what could be free at most; None
            where that is not known.
        unplaced_gpus: GPUs likewise.
        memory_gb: Memory that Ray lends to those who ask for it by number.
        free_memory_gb: What of it nobody has asked for.
        unplaced_memory_gb: Memory likewise.
        accelerator: Type of its GPUs as Ray calls it: "H100"; "" for none or unknown.
        labels: What it was labelled with when Ray was started on it.
        host: Its name, for a reader.
        is_draining: It is about to leave: nothing new is placed on it.
        is_promised: It is not there: the autoscaler could start it, with labels nobody knows yet.
    """

    node_id: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    unplaced_cpus: float | None = None
    unplaced_gpus: float | None = None
    memory_gb: float = 0.0
    free_memory_gb: float = 0.0
    unplaced_memory_gb: float | None = None
    accelerator: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    is_draining: bool = False
    is_promised: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeType:
    """Nodes that the cluster's autoscaler may start.

    Attributes:
        name: Its name.
        cpus: CPUs of each.
        gpus: GPUs of each.
        memory_gb: Memory of each that Ray lends.
        accelerator: Type of its GPUs; "" for none or unknown.
        max_count: The most that there may be at once.
    """

    name: str
    cpus: float
    gpus: float
    memory_gb: float
    accelerator: str
    max_count: int


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


@dataclass(frozen=True, slots=True)
class Start:
    """Start an attempt of a queued job with these workers.

    Attributes:
        job_id: The job.
        placement: Node id to number of workers there.
    """

    job_id: str
    placement: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Preempt:
    """Ask a running job to save and stop.

    Attributes:
        job_id: The victim.
        for_job: The job that will take its place.
    """

    job_id: str
    for_job: str


Action = Start | Preempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Everything that a decision is made from.

    Attributes:
        queue: Jobs that want to start, in any order.
        running: Jobs that hold capacity.
        nodes: The nodes that are alive.
        quotas: Queue to the GPUs that its jobs may hold at once; a queue without an entry has
            no limit.
        loans: What fleets have borrowed; it counts as used until they give it back.
        node_types: What the autoscaler may start; nothing where there is none.
    """

    queue: Sequence[QueuedJob] = ()
    running: Sequence[RunningJob] = ()
    nodes: Sequence[NodeCapacity] = ()
    quotas: Mapping[str, float] = field(default_factory=dict)
    loans: Sequence[Loan] = ()
    node_types: Sequence[NodeType] = ()

    def after(self, actions: Iterable[Action], now: float) -> Self:
        """Return the snapshot as it is once the actions have been asked for.

        A started job runs and its capacity is taken; a preempted one is stopping and still holds
        its own.
        """
        starts: dict[str, Start] = {}
        victims: set[str] = set()
        for action in actions:
            if isinstance(action, Start):
                starts[action.job_id] = action
            else:
                victims.add(action.job_id)
        started = [
            started_job(job, starts[job.job_id].placement, now)
            for job in self.queue
            if job.job_id in starts
        ]
        running = (replace(j, stopping=True) if j.job_id in victims else j for j in self.running)
        return replace(
            self,
            queue=[job for job in self.queue if job.job_id not in starts],
            running=[*running, *started],
            nodes=_with_taken(self.nodes, started),
        )

    def without(self, gone: Collection[str], requeued: Collection[str] = ()) -> Self:
        """Return the snapshot once some running jobs have ended and freed what they held.

        Args:
            gone: Ids of the jobs.
            requeued: Those of them that were preempted, so that they queue again.
        """
        ended = [job for job in self.running if job.job_id in gone]
        victims = [
            QueuedJob(**request_fields(job), was_preempted=True)
            for job in ended
            if job.job_id in requeued
        ]
        return replace(
            self,
            queue=[*self.queue, *victims],
            running=[job for job in self.running if job.job_id not in gone],
            nodes=_with_taken(self.nodes, ended, sign=-1),
        )


_REQUEST_FIELDS = tuple(entry.name for entry in fields(JobRequest))


def request_fields(job: JobRequest) -> dict[str, Any]:
    """Return what a job asks for as arguments of its next form."""
    return {name: getattr(job, name) for name in _REQUEST_FIELDS}


def started_job(job: QueuedJob, placement: Mapping[str, int], now: float) -> RunningJob:
    """Return a queued job as it is once it has been started."""
    return RunningJob(**request_fields(job), placement=placement, started_at=now)


def in_line(queue: Iterable[QueuedJob]) -> list[QueuedJob]:
    """Return the jobs in the order in which they are served.

    The highest priority first; within one a victim of preemption first, then first come, first
    served.
    """
    # One stable sort for each criterion, the last one first: several times faster than one sort
    # by all of them.
    line = sorted(queue, key=attrgetter("submitted_at", "job_id"))
    line.sort(key=attrgetter("was_preempted"), reverse=True)
    line.sort(key=attrgetter("priority"), reverse=True)
    return line


def _with_taken(
    nodes: Sequence[NodeCapacity], jobs: Sequence[RunningJob], sign: int = 1
) -> Sequence[NodeCapacity]:
    """Return the nodes with what the jobs hold taken, or given back (sign -1)."""
    taken: dict[str, tuple[float, float, float]] = {}
    for job in jobs:
        for node_id, workers in job.placement.items():
            cpus, gpus, memory_gb = taken.get(node_id, (0.0, 0.0, 0.0))
            taken[node_id] = (
                cpus + workers * job.cpus_per_worker,
                gpus + workers * job.gpus_per_worker,
                memory_gb + workers * job.memory_gb_per_worker,
            )
    return [
        replace(
            node,
            free_cpus=node.free_cpus - sign * taken[node.node_id][0],
            free_gpus=node.free_gpus - sign * taken[node.node_id][1],
            free_memory_gb=node.free_memory_gb - sign * taken[node.node_id][2],
        )
        if node.node_id in taken
        else node
        for node in nodes
    ]
