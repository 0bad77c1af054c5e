"""Whether a fleet may use room that it was not given: only as long as nobody could start there.

Borrowed room goes back within seconds, since a worker that leaves saves what it holds. So whoever
waits for more than what is free at the moment loses nothing by the loan. Pure.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.snapshot import Loan, NodeCapacity, Snapshot


def somebody_could_start(
    snapshot: Snapshot, waiting: Collection[str], own: Collection[Loan], job_id: str, now: float
) -> bool:
    """Tell whether a queued job would start if a fleet gave back what it has borrowed.

    A job that would start in the place of others, which make room for it, counts too; and so does
    one that needs what several fleets have borrowed: of them, as many leave as it takes.

    Args:
        snapshot: What the orchestrator decided from last.
        waiting: Ids of the jobs that are queued by now; others of the snapshot have started.
        own: What the fleet has borrowed.
        job_id: The fleet, whose loans in the snapshot may be out of date.
        now: Seconds since the epoch, by the store's clock.
    """
    queue = [job for job in snapshot.queue if job.job_id in waiting]
    others = [loan for loan in snapshot.loans if loan.job_id != job_id]

    def helps(loans: Iterable[Loan]) -> bool:
        nodes = _with_given_back(snapshot.nodes, loans)
        return bool(decide(replace(snapshot, queue=queue, nodes=nodes), now))

    if helps(own):
        return True
    # They leave one after the other, in the order of their names, until the rest suffices.
    before = [loan for loan in others if loan.job_id < job_id]
    return bool(own and others) and helps([*own, *others]) and not helps(before)


def _with_given_back(nodes: Iterable[NodeCapacity], loans: Iterable[Loan]) -> list[NodeCapacity]:
    cpus: dict[str, float] = {}
    gpus: dict[str, float] = {}
    memory_gb: dict[str, float] = {}
    for loan in loans:
        memory_gb[loan.node_id] = memory_gb.get(loan.node_id, 0.0) + loan.memory_gb
        cpus[loan.node_id] = cpus.get(loan.node_id, 0.0) + loan.cpus
        gpus[loan.node_id] = gpus.get(loan.node_id, 0.0) + loan.gpus
    return [
        replace(
            node,
            free_cpus=min(
                node.cpus if node.unplaced_cpus is None else node.unplaced_cpus,
                node.free_cpus + cpus.get(node.node_id, 0.0),
            ),
            free_gpus=min(
                node.gpus if node.unplaced_gpus is None else node.unplaced_gpus,
                node.free_gpus + gpus.get(node.node_id, 0.0),
            ),
            free_memory_gb=min(
                node.memory_gb if node.unplaced_memory_gb is None else node.unplaced_memory_gb,
                node.free_memory_gb + memory_gb.get(node.node_id, 0.0),
            ),
        )
        for node in nodes
    ]
