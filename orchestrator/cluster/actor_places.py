"""Where actors live that hold no CPU: on a machine that their work needs anyway.

Left alone, Ray puts them on any node. One that leaves, or is cut off, then takes with it what was
needed by nobody on it: an orchestrator there leaves all jobs unattended for as long as Ray takes
to notice. A wish (`soft=True`) is no help: Ray forgets it of an actor that asks for no resource.
"""

from orchestrator.cluster.ray_private import head_mark

_TRACE = 0.001  # of a resource that each head has one of


def on_head() -> dict[str, object]:
    """Return the options of an actor that lives on Ray's head, which every cluster has."""
    return {"resources": {head_mark(): _TRACE}}


def here() -> dict[str, object]:
    """Return the options of an actor that lives on the node of this process, and ends with it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node_id = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
