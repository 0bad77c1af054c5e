"""Writes down what the cluster's nodes are and who is on them, whenever that changes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from orchestrator.jobs.nodes import NODES, AvoidedBy, NodeEntry, NodeList
from orchestrator.lifecycle.state import JobRecord
from orchestrator.scheduling.nodes import NodeCapacity, NodeType
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore


class NodeBoard:
    """The list of nodes in the store.

    Args:
        store: Where it lies.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._shown: tuple[tuple[NodeEntry, ...], tuple[NodeType, ...]] | None = None

    def show(
        self,
        nodes: Iterable[NodeCapacity],
        records: Sequence[JobRecord],
        types: Sequence[NodeType],
        now: datetime,
    ) -> None:
        """Write the list down unless it stands there already.

        Args:
            nodes: As Ray sees them.
            records: The jobs that have not ended.
            types: What the autoscaler may start.
            now: By the store's clock.
        """
        seen = node_entries(nodes, records), tuple(types)
        if seen != self._shown:
            entries = NodeList(at=now, nodes=seen[0], types=seen[1])
            self._store.put(keys.NODES, NODES.encode(entries))
            self._shown = seen


def node_entries(
    nodes: Iterable[NodeCapacity], records: Sequence[JobRecord]
) -> tuple[NodeEntry, ...]:
    """Return what is to be said of each node, in order of host and id. Pure.

    Args:
        nodes: As Ray sees them.
        records: The jobs that have not ended.
    """
    workers: dict[str, dict[str, int]] = {}
    avoided: dict[str, list[AvoidedBy]] = {}
    for record in records:
        if record.placement is not None and record.state.has_processes:
            for node_id, count in record.placement.workers_by_node.items():
                workers.setdefault(node_id, {})[record.job_id] = count
        for node_id in record.avoided_nodes:
            avoider = AvoidedBy(job_id=record.job_id, why=_why_avoided(record, node_id))
            avoided.setdefault(node_id, []).append(avoider)
    entries = [
        _entry(node, workers.get(node.node_id, {}), avoided.get(node.node_id, ())) for node in nodes
    ]
    return tuple(sorted(entries, key=lambda entry: (entry.host, entry.node_id)))


def _entry(
    node: NodeCapacity, workers: Mapping[str, int], avoided: Sequence[AvoidedBy]
) -> NodeEntry:
    return NodeEntry(
        node_id=node.node_id,
        host=node.host,
        cpus=node.cpus,
        gpus=node.gpus,
        memory_gb=round(node.memory_gb, 1),
        free_cpus=node.free_cpus,
        free_gpus=node.free_gpus,
        free_memory_gb=round(node.free_memory_gb, 1),
        accelerator=node.accelerator,
        labels=node.labels,
        is_draining=node.is_draining,
        workers=workers,
        avoided_by=tuple(avoided),
    )


def _why_avoided(record: JobRecord, node_id: str) -> str:
    """Return the reasons of the attempts that a node is to blame for: "WORKER_LOST in 1, 2, 3"."""
    ended: dict[str, list[int]] = {}
    for attempt in record.attempts:
        if node_id in attempt.failed_node_ids and attempt.reason is not None:
            ended.setdefault(attempt.reason, []).append(attempt.number)
    lines = [f"{why} in {', '.join(map(str, numbers))}" for why, numbers in ended.items()]
    return "; ".join(lines) or "it broke its attempts"
