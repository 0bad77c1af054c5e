"""What is read of Ray's nodes."""

import pytest

from orchestrator.cluster.ray_cluster import node_capacity


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
