"""Whether the Ray that is installed still has what is taken from its private modules."""

from ray._common import constants
from ray._private import state


def test_private_names_of_ray_are_there() -> None:
    """Another version may lack them: told here, not by a node that nobody sees leaving."""
    from ray.data._internal import cluster_autoscaler

    assert callable(state.available_resources_per_node)
    assert callable(state.state.get_draining_nodes)
    assert constants.HEAD_NODE_RESOURCE_NAME.startswith("node:")
    assert callable(cluster_autoscaler.get_or_create_autoscaling_coordinator)
