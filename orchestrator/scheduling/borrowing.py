"""Which fleets give back room that they were not given: where somebody could start in it.

Borrowed room goes back within seconds, since a worker that leaves saves what it holds. So whoever
waits for more than what is free at the moment loses nothing by the loan. Pure.
"""

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.requests import Loan
from orchestrator.scheduling.snapshot import Snapshot


def somebody_starts(snapshot: Snapshot, now: float, given_back: Iterable[Loan] = ()) -> bool:
    """Tell whether a queued job would start, or others would make room for it.

    Args:
        snapshot: What the scheduler sees.
        now: Seconds since the epoch, by the store's clock.
        given_back: Borrowed room that counts as free.
    """
    if not snapshot.queue:
        return False
    nodes = _with_given_back(snapshot.nodes, given_back)
    return bool(decide(replace(snapshot, nodes=nodes), now))


def leaving(snapshot: Snapshot, now: float) -> frozenset[str]:
    """Return the fleets that are to give back all that they have borrowed.

    A job that would start in the place of others, which make room for it, counts too; and so does
    one that needs what several fleets have borrowed: of them, as many leave as it takes, one after
    the other in the order of their names.

    Args:
        snapshot: What the scheduler sees, with the loans.
        now: Seconds since the epoch, by the store's clock.
    """
    # Where all of it would let nobody start, a part of it does not either.
    if not snapshot.loans or not somebody_starts(snapshot, now, snapshot.loans):
        return frozenset()
    return frozenset(
        name
        for name in {loan.job_id for loan in snapshot.loans}
        if somebody_starts(snapshot, now, [one for one in snapshot.loans if one.job_id == name])
        or not somebody_starts(snapshot, now, [one for one in snapshot.loans if one.job_id < name])
    )


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
