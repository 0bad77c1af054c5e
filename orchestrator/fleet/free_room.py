"""For how many more workers the cluster has room that nobody uses."""

from collections.abc import Collection, Iterator, Mapping

import ray

from orchestrator.cluster.ray_cluster import GB
from orchestrator.cluster.ray_private import free_resources
from orchestrator.fleet.plan import PoolPlan
from orchestrator.lifecycle.state import Lending

LOOK_EVERY_S = 1.0
_LOOKS = 2


class FreeRoom:
    """What a fleet may take beyond the places that it was given."""

    def __init__(self, plan: PoolPlan) -> None:
        self._plan = plan
        self._looked_at = 0.0
        self._looks_with_room = 0

    def for_more(self, now: float, leaving: Collection[str], *, is_any_on_its_way: bool) -> int:
        """Return for how many more workers there is room; 0 until a look is due.

        It has to be seen twice, with nobody on the way: whoever waits in the queue goes first.

        Args:
            now: Seconds of a clock that never goes back.
            leaving: Nodes that are being drained, on which nothing is started any more.
            is_any_on_its_way: A worker that was started has not arrived yet.
        """
        if now - self._looked_at < LOOK_EVERY_S:
            return 0
        self._looked_at = now
        room = sum(map(self._workers_in, self._suited(leaving)))
        self._looks_with_room = self._looks_with_room + 1 if room else 0
        if self._looks_with_room < _LOOKS or is_any_on_its_way:
            return 0
        return room if self._plan.lending() is Lending.MORE else 0

    def _suited(self, leaving: Collection[str]) -> Iterator[Mapping[str, float]]:
        """Yield what is free on each node that stays and has the labels."""
        free = {node: room for node, room in free_resources().items() if node not in leaving}
        if not self._plan.labels:
            yield from free.values()
            return
        for node in ray.nodes():
            if node["Alive"] and has_labels(node["Labels"], self._plan.labels):
                yield free.get(node["NodeID"], {})

    def _workers_in(self, free: Mapping[str, float]) -> int:
        memory = self._plan.memory_gb * GB
        needs = {"CPU": self._plan.cpus, "GPU": self._plan.gpus, "memory": memory}
        return min(int(free.get(name, 0.0) / need) for name, need in needs.items() if need)


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Tell whether a node's labels are those that a selector of Ray's asks for.

    Args:
        labels: The node's.
        selector: One value, or "in(A,B)", for each key.
    """
    return all(
        labels.get(key) in value.removeprefix("in(").removesuffix(")").split(",")
        for key, value in selector.items()
    )
