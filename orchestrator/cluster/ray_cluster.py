"""What the orchestrator sees of the Ray cluster that it lives in, and does to it."""

import os
import signal
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import psutil

from orchestrator.cluster.process_identity import BIRTH_TOLERANCE_S, boot_id, born_s
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.scheduling.snapshot import NodeCapacity

# Ray calls an actor's methods on threads, and glibc gives threads heaps of their own, which give
# memory back all the time and never have large pages (`ddpm.memory`); one for all does neither.
# glibc reads this when a process starts, so a head hands it to all that it starts.
MEMORY_SETTINGS = {"MALLOC_ARENA_MAX": "1"}

_ANSWER_S = 10.0


@dataclass(frozen=True)
class ProcessRef:
    """A process of an attempt: a pid alone may mean another process later (see `boot`)."""

    role: str
    pid: int
    born_s: float
    boot_id: str
    node_id: str
    host: str


class Cluster(Protocol):
    """The cluster as the controller needs it."""

    def nodes(self) -> list[NodeCapacity]:
        """Return the live nodes with what is free on each, by Ray's own count."""

    def start(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        """Start an attempt's driver; starting the same one again changes nothing."""

    def status(self, submission_id: str) -> DriverStatus:
        """Return what Ray says of a driver."""

    def message(self, submission_id: str) -> str:
        """Return why Ray says that a driver failed, or ""."""

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a driver."""

    def alive(self, processes: Iterable[ProcessRef]) -> list[ProcessRef]:
        """Return the processes that still run."""

    def kill(self, processes: Iterable[ProcessRef]) -> None:
        """End processes without grace."""


class RayCluster:
    """The `Cluster` that this process, an actor, is connected to."""

    def __init__(self) -> None:
        import ray

        context = ray.get_runtime_context()
        self._jobs = RayJobs(context.gcs_address, _ANSWER_S)
        # An attempt runs the code that the orchestrator runs.
        shipped = dict(context.runtime_env).get("py_modules")
        self._runtime_env: dict[str, Any] = {}
        if shipped:  # a worker with an environment of its own starts later, so not without need
            self._runtime_env = {"py_modules": shipped, "env_vars": MEMORY_SETTINGS}

    def nodes(self) -> list[NodeCapacity]:
        """Return the live nodes with what is free on each, by Ray's own count."""
        import ray
        from ray._private.state import available_resources_per_node

        free = available_resources_per_node()
        nodes = []
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            node_id, total = node["NodeID"], node["Resources"]
            left = free.get(node_id, {})
            nodes.append(
                NodeCapacity(
                    node_id=node_id,
                    cpus=total.get("CPU", 0.0),
                    gpus=total.get("GPU", 0.0),
                    free_cpus=left.get("CPU", 0.0),
                    free_gpus=left.get("GPU", 0.0),
                )
            )
        return nodes

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

    def alive(self, processes: Iterable[ProcessRef]) -> list[ProcessRef]:
        """Return the processes that still run."""
        return self._on_their_hosts(processes, kill=False)

    def kill(self, processes: Iterable[ProcessRef]) -> None:
        """End processes without grace."""
        self._on_their_hosts(processes, kill=True)

    def _on_their_hosts(self, processes: Iterable[ProcessRef], kill: bool) -> list[ProcessRef]:
        """Ask each node about its own processes; those of nodes that are gone are gone."""
        here: list[ProcessRef] = []
        elsewhere: dict[str, list[ProcessRef]] = {}
        for process in processes:
            if process.host == socket.gethostname():
                here.append(process)
            else:
                elsewhere.setdefault(process.host, []).append(process)
        running = local_processes(here, kill)
        if elsewhere:
            running += self._ask_nodes(elsewhere, kill)
        return running

    def _ask_nodes(self, processes: Mapping[str, list[ProcessRef]], kill: bool) -> list[ProcessRef]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = {n["NodeManagerHostname"]: n["NodeID"] for n in ray.nodes() if n["Alive"]}
        ask = ray.remote(num_cpus=0, max_retries=0)(local_processes)
        answers = [
            (
                host_processes,
                ask.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[host], soft=False)
                ).remote(host_processes, kill),
            )
            for host, host_processes in processes.items()
            if host in nodes
        ]
        if not answers:
            return []
        # All together have that long: the loop that asks holds a lease.
        ray.wait([answer for _, answer in answers], num_returns=len(answers), timeout=_ANSWER_S)
        running: list[ProcessRef] = []
        for host_processes, answer in answers:
            try:
                running += ray.get(answer, timeout=0)
            except (ray.exceptions.RayError, TimeoutError):
                # Not proven gone, so still there: asked again in the next loop.
                running += host_processes
        return running


def local_processes(processes: list[ProcessRef], kill: bool) -> list[ProcessRef]:
    """Return which of the processes run on this host, ending them if asked to."""
    running = []
    for ref in processes:
        try:
            process = psutil.Process(ref.pid)
            is_same = ref.boot_id == boot_id() and (
                abs(born_s(process) - ref.born_s) <= BIRTH_TOLERANCE_S
            )
            if not is_same or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if kill:
                os.kill(ref.pid, signal.SIGKILL)
            running.append(ref)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return running
