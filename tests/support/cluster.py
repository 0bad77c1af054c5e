"""A cluster whose drivers and processes tests start and end by hand."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.cluster.process_search import ProcessRef, Sighting
from orchestrator.errors import RayUnavailableError
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.scheduling.demand import Bundle
from orchestrator.scheduling.nodes import NodeCapacity, NodeType


class FakeCluster:
    """A `Cluster` whose drivers and processes tests start and end by hand."""

    def __init__(self, cpus: float = 4, gpus: float = 0) -> None:
        self.cpus = cpus
        self.gpus = gpus
        self.started: dict[str, str] = {}
        self.statuses: dict[str, DriverStatus] = {}
        self.running: set[int] = set()
        self.stopped: list[str] = []
        self.is_reachable = True
        self.notice: float | None = None
        self.types: list[NodeType] = []
        self.wishes: list[tuple[Bundle, ...]] = []
        self.node_ids = ["n1"]
        self.told_of: dict[str, dict[str, Any]] = {}  # of nodes that differ, what Ray says of them

    def nodes(self) -> list[NodeCapacity]:
        """Return the nodes, all free; equal ones but for what a test told of some."""
        equal = NodeCapacity(
            node_id="",
            cpus=self.cpus,
            gpus=self.gpus,
            free_cpus=self.cpus,
            free_gpus=self.gpus,
        )
        return [
            replace(equal, node_id=node_id, **self.told_of.get(node_id, {}))
            for node_id in self.node_ids
        ]

    def notice_s(self, nodes: Collection[str]) -> float | None:
        """Return what a test set."""
        return self.notice

    def node_types(self) -> list[NodeType]:
        """Return what a test lets the autoscaler start."""
        return self.types

    def wish(self, store_uri: str, bundles: Sequence[Bundle]) -> None:
        """Note the wish."""
        self.wishes.append(tuple(bundles))

    def start(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        """Note a driver as started."""
        self._check()
        self.started[submission_id] = entrypoint
        self.statuses.setdefault(submission_id, DriverStatus.RUNNING)

    def status(self, submission_id: str) -> DriverStatus:
        """Return what a test set."""
        self._check()
        return self.statuses.get(submission_id, DriverStatus.ABSENT)

    def message(self, submission_id: str) -> str:
        """Return nothing."""
        return ""

    def stop(self, submission_id: str) -> None:
        """Note the request."""
        self._check()
        self.stopped.append(submission_id)

    def alive(self, processes: Iterable[ProcessRef]) -> Sighting:
        """Return the processes that a test left running."""
        return Sighting([process for process in processes if process.pid in self.running])

    def kill(self, processes: Iterable[ProcessRef]) -> None:
        """End processes."""
        self.running -= {process.pid for process in processes}

    def _check(self) -> None:
        if not self.is_reachable:
            raise RayUnavailableError("the fake cluster is switched off")
