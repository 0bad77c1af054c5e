"""All that is taken from Ray's private modules: its version is pinned, and a test tries each name.

`orchestrator.stack.ray_start` alone reaches further: it starts Ray's own command.
"""


def free_resources() -> dict[str, dict[str, float]]:
    """Return what nobody holds on each live node, by the names of resources."""
    from ray._private.state import available_resources_per_node

    free: dict[str, dict[str, float]] = available_resources_per_node()
    return free


def draining_deadlines_ms() -> dict[str, int]:
    """Return the nodes that are about to leave, and when, in milliseconds of their clock."""
    from ray._private.state import state

    deadlines: dict[str, int] = state.get_draining_nodes()
    return deadlines


def head_mark() -> str:
    """Return the name of the resource that Ray's head alone has."""
    from ray._common.constants import HEAD_NODE_RESOURCE_NAME

    return str(HEAD_NODE_RESOURCE_NAME)


def start_autoscaling_coordinator() -> None:
    """Start the actor with which Ray Train asks autoscalers for nodes, where this Ray has it."""
    try:
        from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
    except ImportError:  # a Ray that does without it, or has it elsewhere
        return
    get_or_create_autoscaling_coordinator()
