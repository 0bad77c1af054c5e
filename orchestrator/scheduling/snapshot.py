"""What a decision is made from, nodes, jobs and quotas, and the two actions that it may ask for."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Self

from orchestrator.scheduling.nodes import NodeCapacity, NodeType
from orchestrator.scheduling.requests import Loan, QueuedJob, RunningJob


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
        victims = [QueuedJob.of(job, was_preempted=True) for job in ended if job.job_id in requeued]
        return replace(
            self,
            queue=[*self.queue, *victims],
            running=[job for job in self.running if job.job_id not in gone],
            nodes=_with_taken(self.nodes, ended, sign=-1),
        )


def started_job(job: QueuedJob, placement: Mapping[str, int], now: float) -> RunningJob:
    """Return a queued job as it is once it has been started."""
    return RunningJob.of(job, placement=placement, started_at=now)


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
