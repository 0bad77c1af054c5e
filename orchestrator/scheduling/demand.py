"""What the queue would use if the autoscaler gave all that it can: `demand`, pure.

Jobs are served in the order of `in_line`, within their quotas, on the nodes that are there and on
those that could still be started. A gang of which not all would fit is not asked for: its nodes
would stand idle. What runs is part of the wish, for a wish is the whole of it.
"""

from dataclasses import dataclass

from orchestrator.scheduling.decide import asks_of
from orchestrator.scheduling.ledger import NodeLedger, QuotaLedger
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.promised import promised_nodes
from orchestrator.scheduling.requests import JobRequest, QueuedJob
from orchestrator.scheduling.snapshot import Snapshot, in_line

TYPE_LABEL = "ray.io/accelerator-type"


@dataclass(frozen=True, order=True)
class Bundle:
    """What one worker needs.

    Attributes:
        cpus: CPUs.
        gpus: GPUs.
        memory_gb: Memory in GB of 10^9 bytes; 0 where it isn't counted.
        labels: Labels of its node, as Ray's selectors have them: one value, or "in(A,B)".
    """

    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()


def with_promised(snapshot: Snapshot) -> list[NodeCapacity]:
    """Return the nodes that are there, and those that the autoscaler could still start."""
    return [*snapshot.nodes, *promised_nodes(snapshot.node_types, snapshot.nodes)]


def demand(snapshot: Snapshot) -> tuple[Bundle, ...]:
    """Return a bundle for each worker that runs or could, in order; nothing when all is idle.

    Args:
        snapshot: Nodes, jobs and quotas as they are, and what the autoscaler may start.
    """
    nodes = NodeLedger(with_promised(snapshot), snapshot.running)
    quotas = QuotaLedger(snapshot.quotas, snapshot.running)
    wish = [
        bundle_of(job)
        for job in snapshot.running
        if not job.stopping
        for _ in range(job.num_workers)
    ]
    for job in in_line(snapshot.queue):
        if job.waits_for is None:
            wish += [bundle_of(job)] * _held(job, nodes, quotas)
    return tuple(sorted(wish))


def bundle_of(job: JobRequest) -> Bundle:
    """Return what one worker of a job needs."""
    types = job.accelerators if job.gpus_per_worker else ()
    selector = ((TYPE_LABEL, f"in({','.join(types)})"),) if types else ()
    return Bundle(
        cpus=job.cpus_per_worker,
        gpus=job.gpus_per_worker,
        memory_gb=job.memory_gb_per_worker,
        labels=tuple(sorted((*job.labels, *selector))),
    )


def _held(job: QueuedJob, nodes: NodeLedger, quotas: QuotaLedger) -> int:
    """Hold what a job could use, and return how many workers that are."""
    for ask in asks_of(job, nodes):
        fitting = min(job.num_workers_max, nodes.num_soon(ask), quotas.num_soon(job.queue, ask))
        if fitting >= job.num_workers_min:
            nodes.hold(ask, fitting)
            quotas.take(job.queue, ask, fitting, is_now=False)
            return fitting
    return 0
