"""More nodes for the session's cluster, somebody else who holds its CPUs, and sudden deaths."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.cluster.processes import end_processes, owned_processes, start_detached
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.stack.embedded import StackInfo
from orchestrator.stack.files import StackFolder, load_state
from orchestrator.stack.parts import inherited_environment
from orchestrator.stack.ports import LOOPBACK
from tests.integration.commands import wait_until

_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_NODE = """
import time
from ray._private.node import Node
from ray._private.parameter import RayParams
params = RayParams(
    gcs_address="{address}",
    node_ip_address="{ip}",
    num_cpus={num_cpus},
    num_gpus={num_gpus},
    object_store_memory=80_000_000,
    min_worker_port=0,
    max_worker_port=0,
    node_manager_port=0,
    include_log_monitor=False,
)
params.dashboard_agent_listen_port = None
node = Node.__new__(Node)
for _ in range(5):
    try:
        node.__init__(params, head=False, shutdown_at_exit=True, spawn_reaper=True)
        break
    except Exception as error:  # Ray gives a raylet half a minute, which a crowded machine may not
        print(error, flush=True)
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
time.sleep(3600)
"""
_HOG = """
import ray, time
ray.init(log_to_driver=False)
place = ray.util.placement_group([{{"CPU": {num_cpus}}}])
ray.get(place.ready())
print("holds them", flush=True)
time.sleep(600)
"""


def kill_tree(pid: int) -> None:
    """End a process and all that it started, as a crash does; return when they are gone."""
    leader = psutil.Process(pid)
    processes = [leader, *leader.children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # one may have taken another with it
            process.kill()
    psutil.wait_procs(processes, timeout=10)


class Node:
    """A raylet of its own on this machine, which joins the session's cluster."""

    def __init__(self, mark: str, leader: ProcessIdentity) -> None:
        self._mark = mark
        self._leader = leader

    def kill(self) -> None:
        """End the raylet and all that runs under it at once, as a power cut does."""
        for process in owned_processes(self._mark, self._leader):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        end_processes(self._mark, self._leader, grace_s=0.0)


@contextmanager
def extra_node(info: StackInfo, folder: Path, num_cpus: int, num_gpus: int = 0) -> Iterator[Node]:
    """Have one more node join; at the end it is killed.

    `ray start --address` itself refuses to on a cluster that keeps to loopback.
    """
    ports = load_state(StackFolder(info.folder)).ports
    environment = {**inherited_environment(folder), **info.environment, **_SETTINGS}
    del environment["RAY_ADDRESS"]
    address = f"{LOOPBACK}:{ports['ray.gcs']}"
    code = _NODE.format(address=address, ip=LOOPBACK, num_cpus=num_cpus, num_gpus=num_gpus)
    command = (sys.executable, "-c", code)
    mark = f"extra-node-{secrets.token_hex(4)}"
    leader = start_detached(
        command, environment, mark=mark, folder=folder, log=folder / "extra-node.log"
    )
    node = Node(mark, leader)
    try:
        yield node
    finally:
        node.kill()


@contextmanager
def held_cpus(jobs: RayJobs, num_cpus: int) -> Iterator[None]:
    """Hold CPUs of the session's cluster, as another job of the cluster's users."""
    name = f"hog-{secrets.token_hex(4)}"
    code = _HOG.format(num_cpus=num_cpus).strip().replace("\n", "; ").replace('"', "'")
    jobs.submit(name, f'python -c "{code}"', metadata={})
    try:
        wait_until(lambda: "holds them" in jobs.logs(name))
        yield
    finally:
        jobs.stop(name)
