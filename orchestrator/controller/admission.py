"""From records to what the scheduler sees, and from "auto" to numbers. Pure."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.jobs.heartbeat import Heartbeat
from orchestrator.lifecycle.retry import GAVE_WAY
from orchestrator.lifecycle.state import JobRecord, JobState, Placement, ResolvedResources
from orchestrator.scheduling.matching import unsuited_nodes
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.requests import JobRequest, Loan, QueuedJob, RunningJob
from orchestrator.specs.job import Job

MAX_AUTO_CPUS_PER_GPU = 8
_NONE: Mapping[str, int] = {}
_NOTHING: Mapping[str, str] = {}


def resolve_resources(
    spec: Job, nodes: Sequence[NodeCapacity], *, is_smoke: bool = False
) -> ResolvedResources:
    """Return what a job asks for in numbers.

    "auto" GPUs are one a worker where the cluster has any, else none. "auto" CPUs are a GPU's
    share of its node, at most 8; without GPUs, as many as let all workers run at once. A smoke
    test waits for no GPU: where none is free it takes none, and one CPU will do.
    """
    workers, resources = spec.num_workers, spec.resources
    nodes = _suited(spec, nodes)
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        wants_gpu = bool(resources.accelerators) or any(node.gpus >= 1 for node in nodes)
        gpus = 1.0 if wants_gpu else 0.0
    if is_smoke and not any(node.free_gpus >= gpus and not node.is_promised for node in nodes):
        gpus = 0.0
    cpus = resources.cpus_per_worker
    if cpus == "auto" and is_smoke and not gpus:
        cpus = 1  # it computes for seconds and must find room
    if cpus == "auto":
        cpus = _cpus_beside_gpus(gpus, nodes) if gpus else _cpus_alone(workers.max, nodes)
    return ResolvedResources(
        min_workers=workers.min,
        max_workers=workers.max,
        cpus_per_worker=cpus,
        gpus_per_worker=float(gpus),
        memory_gb_per_worker=resources.memory_gb or 0.0,
    )


def with_accelerator(
    resources: ResolvedResources,
    spec: Job,
    placed_on: Collection[str],
    nodes: Sequence[NodeCapacity],
) -> ResolvedResources:
    """Return a job's resources once an attempt has its nodes: with their type of GPU, if it stays.

    Args:
        resources: As they were resolved.
        spec: What was asked.
        placed_on: The attempt's nodes.
        nodes: All nodes.
    """
    if not resources.gpus_per_worker or resources.accelerator or not spec.fixes_accelerator:
        return resources
    types = {node.accelerator for node in nodes if node.node_id in placed_on}
    return replace(resources, accelerator=types.pop()) if len(types) == 1 else resources


def _suited(spec: Job, nodes: Sequence[NodeCapacity]) -> Sequence[NodeCapacity]:
    """Return the nodes that a job may use by type and labels; all of them where none is there."""
    if not spec.resources.accelerators and not spec.resources.labels:
        return nodes
    asked = JobRequest(
        job_id="",
        gpus_per_worker=1.0,
        accelerators=spec.resources.accelerators,
        labels=labels_asked(spec),
    )
    unsuited = unsuited_nodes(asked, nodes)
    return [node for node in nodes if node.node_id not in unsuited] or nodes


def labels_asked(spec: Job) -> tuple[tuple[str, str], ...]:
    """Return the labels that a job's nodes must have, in order of the keys."""
    return tuple(sorted(spec.resources.labels.items()))


def unseen_by_smoke(spec: Job, resources: ResolvedResources, nodes: Sequence[NodeCapacity]) -> str:
    """Return what a smoke test without a GPU can't show, where the main job will have one."""
    wants_gpus = spec.resources.gpus_per_worker != 0 and any(node.gpus > 0 for node in nodes)
    if resources.gpus_per_worker or not wants_gpus:
        return ""
    return ", since no GPU is free: a GPU's memory and kernels are not tried"


def _cpus_beside_gpus(gpus: float, nodes: Sequence[NodeCapacity]) -> int:
    shares = [int(node.cpus * gpus / node.gpus) for node in nodes if node.gpus >= gpus]
    return max(1, min([*shares, MAX_AUTO_CPUS_PER_GPU]))


def _cpus_alone(num_workers: int, nodes: Sequence[NodeCapacity]) -> int:
    largest = max((int(node.cpus) for node in nodes), default=1)
    for cpus in range(largest, 1, -1):
        if sum(int(node.cpus) // cpus for node in nodes) >= num_workers:
            return cpus
    return 1


def _request(record: JobRecord, spec: Job, resources: ResolvedResources) -> JobRequest:
    return JobRequest(
        job_id=record.job_id,
        queue=record.queue,
        priority=record.priority,
        submitted_at=record.submitted_at.timestamp(),
        num_workers_min=resources.min_workers,
        num_workers_max=resources.max_workers,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=resources.gpus_per_worker,
        max_runtime_s=spec.max_runtime_s,
        preemptible=spec.preemptible,
        memory_gb_per_worker=resources.memory_gb_per_worker,
        accelerators=(
            (resources.accelerator,)
            if resources.accelerator and spec.fixes_accelerator
            else spec.resources.accelerators
        ),
        is_of_one_accelerator=spec.is_of_one_accelerator,
        labels=labels_asked(spec),
        owner=record.owner,
    )


def queued_job(
    record: JobRecord,
    spec: Job,
    nodes: Sequence[NodeCapacity],
    waits_for: str | None,
    *,
    is_smoke: bool = False,
    spent: Mapping[str, str] = _NOTHING,
) -> QueuedJob:
    """Return a QUEUED record as the scheduler sees it.

    Args:
        record: The record.
        spec: What is asked.
        nodes: What "auto" counts with.
        waits_for: What it needs besides capacity.
        is_smoke: Whether it is a smoke test.
        spent: Queues that have used their GPU-hours of the month, and what their jobs wait for.
    """
    resources = record.resources or resolve_resources(spec, nodes, is_smoke=is_smoke)
    if waits_for is None and resources.gpus_per_worker:
        waits_for = spent.get(record.queue)
    return QueuedJob.of(
        _request(record, spec, resources),
        was_preempted=record.reason in GAVE_WAY,
        not_before=record.not_before.timestamp() if record.not_before else 0.0,
        avoided_nodes=frozenset(record.avoided_nodes),
        waits_for=waits_for,
    )


def running_job(record: JobRecord, spec: Job, said: Heartbeat | None, now: datetime) -> RunningJob:
    """Return a record with processes as the scheduler sees it."""
    placement, resources = record.placement, record.resources
    assert placement is not None, record.job_id  # noqa: S101 - every started record has both
    assert resources is not None, record.job_id  # noqa: S101
    said = said or Heartbeat()
    rate = said.rate_per_s
    left_s = (said.total - said.done) / rate if rate > 0 else None
    uncommitted = max(0.0, said.done - said.committed)
    return RunningJob.of(
        _request(record, spec, resources),
        placement=placement.workers_by_node,
        started_at=record.attempts[-1].started_at.timestamp(),
        progress_since_checkpoint_s=uncommitted / rate if rate > 0 else 0.0,
        stopping=record.state is JobState.STOPPING,
        expected_end_at=None if left_s is None else now.timestamp() + left_s,
    )


def loans_of(record: JobRecord, said: Heartbeat | None) -> list[Loan]:
    """Return what a fleet has borrowed, by its heartbeat: its workers beyond its placement."""
    placement = record.placement
    if placement is None or said is None:
        return []
    workers = Counter(worker.node_id for worker in said.workers)
    workers.subtract(placement.workers_by_node)
    return [
        Loan(
            job_id=record.job_id,
            node_id=node_id,
            cpus=float(count * placement.cpus_per_worker),
            gpus=count * placement.gpus_per_worker,
            memory_gb=count * placement.memory_gb_per_worker,
        )
        for node_id, count in sorted(workers.items())
        if count > 0
    ]


def with_ours_taken(
    nodes: Sequence[NodeCapacity],
    records: Iterable[JobRecord],
    workers_there: Callable[[JobRecord], Mapping[str, int]] = lambda _: {},
) -> list[NodeCapacity]:
    """Return the nodes with what our jobs hold taken off, also where Ray does not see it yet.

    Ray's count lags behind: a worker that is about to start holds nothing there, one that is about
    to end still does. So a node has free what is left after all our placements, and no more than
    what Ray sees free less the workers that only start. That errs on the safe side for seconds.

    Args:
        nodes: As Ray sees them.
        records: Our jobs that have processes.
        workers_there: Of a job that starts, node id to the workers that Ray is known to see.
    """
    ours, starting = _Held(), _Held()
    for record in records:
        ours.add(record.placement)
        if record.state is JobState.STARTING:
            starting.add(record.placement, workers_there(record))
    return [_with_taken(node, ours, starting) for node in nodes]


def _with_taken(node: NodeCapacity, ours: "_Held", starting: "_Held") -> NodeCapacity:
    name = node.node_id
    unplaced_cpus = max(0.0, node.cpus - ours.cpus.get(name, 0.0))
    unplaced_gpus = max(0.0, node.gpus - ours.gpus.get(name, 0.0))
    free_cpus = max(0.0, node.free_cpus - starting.cpus.get(name, 0.0))
    free_gpus = max(0.0, node.free_gpus - starting.gpus.get(name, 0.0))
    unplaced_memory_gb = max(0.0, node.memory_gb - ours.memory_gb.get(name, 0.0))
    free_memory_gb = max(0.0, node.free_memory_gb - starting.memory_gb.get(name, 0.0))
    return replace(
        node,
        free_cpus=min(unplaced_cpus, free_cpus),
        free_gpus=min(unplaced_gpus, free_gpus),
        unplaced_cpus=unplaced_cpus,
        unplaced_gpus=unplaced_gpus,
        free_memory_gb=min(unplaced_memory_gb, free_memory_gb),
        unplaced_memory_gb=unplaced_memory_gb,
    )


class _Held:
    """CPUs, GPUs and memory that placements hold, by node."""

    def __init__(self) -> None:
        self.cpus: Counter[str] = Counter()
        self.gpus: dict[str, float] = {}
        self.memory_gb: dict[str, float] = {}

    def add(self, placement: Placement | None, without: Mapping[str, int] = _NONE) -> None:
        """Count what a placement holds, but for some of its workers by node."""
        if placement is None:
            return
        for node_id, workers in placement.workers_by_node.items():
            count = max(0, workers - without.get(node_id, 0))
            self.cpus[node_id] += count * placement.cpus_per_worker
            held = self.gpus.get(node_id, 0.0)
            self.gpus[node_id] = held + count * placement.gpus_per_worker
            memory_gb = self.memory_gb.get(node_id, 0.0)
            self.memory_gb[node_id] = memory_gb + count * placement.memory_gb_per_worker
