"""A process is gone when its own machine says so, or when Ray says that its node is."""

from typing import Any

import pytest

from orchestrator.cluster.process_identity import boot_id
from orchestrator.cluster.ray_cluster import (
    ProcessRef,
    local_processes,
    node_capacity,
    nodes_to_ask,
)


def node(node_id: str, host: str, alive: bool = True) -> dict[str, Any]:
    """Return a node as `ray.nodes` tells of it."""
    return {"NodeID": node_id, "NodeManagerHostname": host, "Alive": alive}


def process(node_id: str, host: str = "twin") -> ProcessRef:
    """Return a process of an attempt."""
    return ProcessRef("worker-0", 7, 1.5, "boot", node_id, host)


def test_a_process_is_looked_for_on_its_own_node_and_not_on_one_of_the_same_name() -> None:
    """The other one knows nothing of it: its word that it is gone started a job twice."""
    one, two = process("n1"), process("n2")
    nodes = [node("n1", "twin"), node("n2", "twin")]
    assert nodes_to_ask([one, two], nodes) == {"n1": [one], "n2": [two]}


def test_a_process_is_gone_with_its_node_and_no_sooner() -> None:
    """A node that cannot be asked is asked again until Ray calls it dead."""
    mine = process("n1")
    assert nodes_to_ask([mine], [node("n1", "twin", alive=False), node("n2", "twin")]) == {}
    assert nodes_to_ask([mine], [node("n1", "renamed")]) == {"n1": [mine]}


def test_a_process_of_a_node_that_this_ray_never_knew_is_looked_for_by_name() -> None:
    """After Ray was started anew all nodes have new ids, and what ran there may run still."""
    mine, nameless = process("n0"), process("")
    nodes = [node("n1", "twin"), node("n2", "twin"), node("n3", "other")]
    both = [mine, nameless]
    assert nodes_to_ask(both, nodes) == {"n1": both, "n2": both}
    assert nodes_to_ask(both, [node("n3", "other")]) == {}


def test_a_process_of_another_start_or_container_is_not_found_here() -> None:
    """Its pid here is somebody else's, who must not be killed."""
    assert local_processes([process("n1")], kill=True) == []
    assert ProcessRef("driver", 1, -1.0, boot_id(), "n1", "h").identity.find() is None


@pytest.mark.parametrize(
    ("labels", "resources", "accelerator"),
    [
        ({"ray.io/accelerator-type": "H100"}, {"accelerator_type:H100": 1.0}, "H100"),
        ({}, {"accelerator_type:A10G": 1.0}, "A10G"),
        ({}, {}, ""),
    ],
)
def test_a_nodes_type_and_memory_are_read_from_ray(
    labels: dict[str, str], resources: dict[str, float], accelerator: str
) -> None:
    """Who starts Ray on a node may give it the label or the older resource, or neither."""
    told = {
        "NodeID": "n1", "Labels": labels, "NodeManagerHostname": "h",
        "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 64e9, **resources},
    }  # fmt: skip
    node = node_capacity(told, {"CPU": 3.0, "memory": 24e9})
    assert (node.accelerator, node.memory_gb, node.free_memory_gb) == (accelerator, 64.0, 24.0)
    assert (node.cpus, node.free_cpus, node.gpus, node.free_gpus) == (8.0, 3.0, 2.0, 0.0)
    assert (node.host, node.labels) == ("h", labels)
