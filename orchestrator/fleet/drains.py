"""Which nodes are about to leave, as a fleet sees it: looked up now and then."""

from collections.abc import Mapping

from orchestrator.cluster.ray_cluster import draining_nodes

LOOK_EVERY_S = 1.0


class Drains:
    """The nodes that are being drained.

    Attributes:
        nodes: Each of them, and the seconds that it had left at the last look; None if unknown.
    """

    def __init__(self) -> None:
        self.nodes: Mapping[str, float | None] = {}
        self._looked_at = float("-inf")

    def look(self, now: float) -> list[str]:
        """Look again if that is due, and return the nodes that are new among them.

        Args:
            now: Seconds of a clock that never goes back.
        """
        if now - self._looked_at < LOOK_EVERY_S:
            return []
        self._looked_at = now
        before, self.nodes = self.nodes, draining_nodes()
        return sorted(self.nodes.keys() - before.keys())
