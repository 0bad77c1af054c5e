"""What the orchestrator sees of the Ray cluster that it lives in, and does to it."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.cluster.autoscaler import node_types_here
from orchestrator.cluster.growth_actor import growth_actor
from orchestrator.cluster.process_memory import MEMORY_SETTINGS
from orchestrator.cluster.process_search import (
    NodeAnswer,
    ProcessRef,
    Sighting,
    local_processes,
    nodes_to_ask,
    sighted,
)
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.cluster.ray_private import draining_deadlines_ms, free_resources
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.scheduling.demand import Bundle
from orchestrator.scheduling.nodes import NodeCapacity, NodeType

GB = 1e9
TYPE_LABEL = "ray.io/accelerator-type"
_TYPE_PREFIX = "accelerator_type:"
_ANSWER_S = 10.0

logger = logging.getLogger(__name__)


class Cluster(Protocol):
    """The cluster as the controller needs it."""

    def nodes(self) -> list[NodeCapacity]:
        """Return the live nodes with what is free on each, by Ray's own count."""

    def notice_s(self, nodes: Collection[str]) -> float | None:
        """Return the seconds until the first of some draining nodes is ended; None if unknown."""

    def node_types(self) -> list[NodeType]:
        """Return what the cluster's autoscaler may start; nothing where there is none."""

    def wish(self, store_uri: str, bundles: Sequence[Bundle]) -> None:
        """Tell the autoscaler all that the jobs of a store use or would use."""

    def start(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        """Start an attempt's driver; starting the same one again changes nothing."""

    def status(self, submission_id: str) -> DriverStatus:
        """Return what Ray says of a driver."""

    def message(self, submission_id: str) -> str:
        """Return why Ray says that a driver failed, or ""."""

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a driver."""

    def alive(self, processes: Iterable[ProcessRef]) -> Sighting:
        """Return which of some processes run, and of which nobody can say."""

    def kill(self, processes: Iterable[ProcessRef]) -> None:
        """End processes without grace."""


class RayCluster:
    """The `Cluster` that this process, an actor, is connected to.

    Attributes:
        node_id: The Ray node of this process.
        session: Ray's name of it; a head that is started again has another.
    """

    def __init__(self) -> None:
        import ray

        context = ray.get_runtime_context()
        self.node_id: str = context.get_node_id()
        self.session = str(context.get_session_name())
        self._namespace = str(context.namespace)
        self._node_types = node_types_here()
        self._jobs = RayJobs(context.gcs_address, _ANSWER_S)
        # An attempt runs the code that the orchestrator runs.
        shipped = dict(context.runtime_env).get("py_modules")
        self._runtime_env: dict[str, Any] = {}
        if shipped:  # a worker with an environment of its own starts later, so not without need
            self._runtime_env = {"py_modules": shipped, "env_vars": MEMORY_SETTINGS}

    def nodes(self) -> list[NodeCapacity]:
        """Return the live nodes with what is free on each, by Ray's own count."""
        import ray

        free, draining = free_resources(), draining_nodes()
        nodes = []
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            node_id = node["NodeID"]
            seen = node_capacity(node, free.get(node_id, {}))
            nodes.append(replace(seen, is_draining=node_id in draining))
        return nodes

    def notice_s(self, nodes: Collection[str]) -> float | None:
        """Return the seconds until the first of some draining nodes is ended; None if unknown."""
        left = [s for node, s in draining_nodes().items() if node in nodes and s is not None]
        return min(left, default=None)

    def node_types(self) -> list[NodeType]:
        """Return what the cluster's autoscaler may start; nothing where there is none."""
        return self._node_types

    def wish(self, store_uri: str, bundles: Sequence[Bundle]) -> None:
        """Tell the autoscaler all that the jobs of a store use or would use.

        Nobody waits for that: a wish that is lost is made again.
        """
        import ray

        try:
            growth_actor(self._namespace).wish.remote(store_uri, tuple(bundles))
        except (ray.exceptions.RayError, ValueError) as error:  # two may start it at once
            logger.warning("the autoscaler is asked later: %s", error)

    def start(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        """Start an attempt's driver; starting the same one again changes nothing."""
        self._jobs.submit(
            submission_id, entrypoint, metadata=metadata, runtime_env=self._runtime_env
        )

    def status(self, submission_id: str) -> DriverStatus:
        """Return what Ray says of a driver."""
        return self._jobs.status(submission_id)

    def message(self, submission_id: str) -> str:
        """Return why Ray says that a driver failed, or ""."""
        return self._jobs.message(submission_id)

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a driver."""
        self._jobs.stop(submission_id)

    def alive(self, processes: Iterable[ProcessRef]) -> Sighting:
        """Return which of some processes run, and of which nobody can say."""
        return self._where_they_run(processes, kill=False)

    def kill(self, processes: Iterable[ProcessRef]) -> None:
        """End processes without grace."""
        self._where_they_run(processes, kill=True)

    def _where_they_run(self, processes: Iterable[ProcessRef], kill: bool) -> Sighting:
        refs = list(processes)
        elsewhere = [ref for ref in refs if not ref.identity.is_of_this_machine]
        here = local_processes([ref for ref in refs if ref.identity.is_of_this_machine], kill)
        if not elsewhere:
            return Sighting(here.running)
        far = self._ask_nodes(elsewhere, kill)
        return Sighting([*here.running, *far.running], far.unknown)

    def _ask_nodes(self, refs: Sequence[ProcessRef], kill: bool) -> Sighting:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = nodes_to_ask(refs, ray.nodes())
        ask = ray.remote(num_cpus=0, max_retries=0)(local_processes)
        pending = {
            ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
            ).remote(there, kill): node_id
            for node_id, there in asked.by_node.items()
        }
        if pending:  # all together have that long: the loop that asks holds a lease
            ray.wait(list(pending), num_returns=len(pending), timeout=_ANSWER_S)
        answers: dict[str, NodeAnswer | None] = {}
        for answer, node_id in pending.items():
            try:
                answers[node_id] = ray.get(answer, timeout=0)
            except (ray.exceptions.RayError, TimeoutError):
                answers[node_id] = None
        return sighted(asked, answers)


def draining_nodes() -> dict[str, float | None]:
    """Return the nodes that are about to leave, and the seconds that each still has.

    Whoever drains a node gives the end by a clock of his own: where that cannot be, since it lies
    in the past, nobody knows it, and it is None.
    """
    now_s, deadlines_ms = time.time(), draining_deadlines_ms()
    left = {node_id: deadline_ms / 1000 - now_s for node_id, deadline_ms in deadlines_ms.items()}
    return {node_id: seconds if seconds > 0 else None for node_id, seconds in left.items()}


def node_capacity(node: Mapping[str, Any], free: Mapping[str, float]) -> NodeCapacity:
    """Return what a node has.

    Args:
        node: As `ray.nodes` lists it.
        free: What of its resources nobody holds, by their names.
    """
    total, labels = node["Resources"], dict(node.get("Labels") or {})
    named = [name for name in total if name.startswith(_TYPE_PREFIX)]
    accelerator = labels.get(TYPE_LABEL) or next(iter(named), _TYPE_PREFIX)
    return NodeCapacity(
        node_id=node["NodeID"],
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        free_cpus=free.get("CPU", 0.0),
        free_gpus=free.get("GPU", 0.0),
        memory_gb=total.get("memory", 0.0) / GB,
        free_memory_gb=free.get("memory", 0.0) / GB,
        accelerator=accelerator.removeprefix(_TYPE_PREFIX),
        labels=labels,
        host=node.get("NodeManagerHostname", ""),
    )
