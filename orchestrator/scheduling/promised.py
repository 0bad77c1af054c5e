"""The nodes that the cluster's autoscaler could still start. Pure."""

from collections.abc import Sequence

from orchestrator.scheduling.nodes import NodeCapacity, NodeType

GROUP_LABEL = "ray.io/node-group"
MOST_PROMISED = 4096


def promised_nodes(
    types: Sequence[NodeType], present: Sequence[NodeCapacity]
) -> list[NodeCapacity]:
    """Return the nodes that the autoscaler could still start, all of them free.

    Args:
        types: What it may start.
        present: The nodes that are there.
    """
    there = {kind.name: sum(_is_of(node, kind) for node in present) for kind in types}
    return [
        NodeCapacity(
            node_id=f"~{kind.name}-{number:05d}",  # behind all that are there
            cpus=kind.cpus,
            gpus=kind.gpus,
            free_cpus=kind.cpus,
            free_gpus=kind.gpus,
            memory_gb=kind.memory_gb,
            free_memory_gb=kind.memory_gb,
            accelerator=kind.accelerator,
            is_promised=True,
        )
        for kind in types
        for number in range(min(kind.max_count - there[kind.name], MOST_PROMISED))
    ]


def _is_of(node: NodeCapacity, kind: NodeType) -> bool:
    """Tell whether a node is one of a type: by its label, or where it has none by its size."""
    group = node.labels.get(GROUP_LABEL)
    return group == kind.name if group else (node.cpus, node.gpus) == (kind.cpus, kind.gpus)
