"""Whether a fleet may use room that it was not given: only as long as nobody could start there.

Borrowed room goes back within seconds, since a worker that leaves saves what it holds. So whoever
waits for more than what is free at the moment loses nothing by the loan. Pure.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from orchestrator.scheduling import decide
from orchestrator.snapshot import NodeCapacity, Snapshot, Start


def somebody_could_start(
    snapshot: Snapshot,
    waiting: Collection[str],
    borrowed: Mapping[str, int],
    worker: tuple[float, float],
    now: float,
) -> bool:
    """Tell whether a queued job would start if a fleet gave back what it has borrowed.

    Args:
        snapshot: What the orchestrator decided from last.
        waiting: Ids of the jobs that are queued by now; others of the snapshot have started.
        borrowed: Node id to the fleet's workers there that hold borrowed room.
        worker: CPUs and GPUs of each.
        now: Seconds since the epoch, by the store's clock.
    """
    queue = [job for job in snapshot.queue if job.job_id in waiting]
    nodes = [
        _with_given_back(node, borrowed.get(node.node_id, 0), worker) for node in snapshot.nodes
    ]
    actions = decide(replace(snapshot, queue=queue, nodes=nodes), now)
    return any(isinstance(action, Start) for action in actions)


def _with_given_back(
    node: NodeCapacity, num_workers: int, worker: tuple[float, float]
) -> NodeCapacity:
    return replace(
        node,
        free_cpus=min(node.cpus, node.free_cpus + num_workers * worker[0]),
        free_gpus=min(node.gpus, node.free_gpus + num_workers * worker[1]),
    )
