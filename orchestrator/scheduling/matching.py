"""Which nodes a job may use at all: their type of GPU and their labels, whatever is free there."""

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.requests import JobRequest

_RAY = "ray.io/"
_PLACES = ("availability-region", "availability-zone", "market-type", "node-group")


def why_unsuited(job: JobRequest, node: NodeCapacity) -> str:
    """Say why a job may not use a node, whatever is free there; "" if it may.

    A job without GPUs asks for no type of them.
    """
    if node.is_draining:
        return "it is being drained"
    is_known = node.accelerator or not node.is_promised
    if (
        is_known
        and job.gpus_per_worker
        and job.accelerators
        and node.accelerator not in job.accelerators
    ):
        has = f"has {node.accelerator}" if node.accelerator else "names no accelerator"
        return f"it {has}, not {' or '.join(job.accelerators)}"
    for key, value in () if node.is_promised else job.labels:
        if node.labels.get(key) != value:
            state = f"is {node.labels[key]}" if key in node.labels else "is not set"
            return f"its label {key} {state}, not {value}"
    return ""


def own_labels(labels: Mapping[str, str]) -> list[str]:
    """Return as "key=value" the labels that somebody gave a node, and where it stands.

    Ray gives every node labels that distinguish it and nobody chooses by.
    """
    shown = {
        key: value
        for key, value in labels.items()
        if not key.startswith(_RAY) or key.removeprefix(_RAY) in _PLACES
    }
    return [f"{key}={value}" for key, value in sorted(shown.items())]


def unsuited_nodes(job: JobRequest, nodes: Iterable[NodeCapacity]) -> frozenset[str]:
    """Return the ids of the nodes that a job may never use; the ledger leaves out who drains."""
    if not job.accelerators and not job.labels:
        return frozenset()
    return frozenset(node.node_id for node in nodes if why_unsuited(job, node))


def accelerators_to_try(job: JobRequest, nodes: Iterable[NodeCapacity]) -> Sequence[str]:
    """Return the types of GPU of which a job must choose one, its own order first.

    Returns:
        Types that the nodes have, "" among them for those that name none; nothing where it may
        mix, or where there is no choice.
    """
    if not job.is_of_one_accelerator or not job.gpus_per_worker:
        return ()
    there = {node.accelerator for node in nodes if node.gpus > 0}
    there = {name for name in there if not job.accelerators or name in job.accelerators}
    if len(there) < 2:
        return ()
    order = {name: place for place, name in enumerate(job.accelerators)}
    return sorted(there, key=lambda name: (order.get(name, len(order)), name))
