"""A job whose node falls silent, from the last heartbeat to the next attempt.

Between the two nothing may start it again: what cannot be asked may be running still.
"""

from collections.abc import Iterable
from typing import Any

import pytest

from orchestrator.client.submit import submit_job
from orchestrator.cluster.process_search import (
    NodeAnswer,
    ProcessRef,
    Sighting,
    nodes_to_ask,
    sighted,
)
from orchestrator.jobs.processes import REGISTERED_PROCESS, RegisteredProcess
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import Reason
from orchestrator.lifecycle.steps import FORGOTTEN_AFTER_S
from orchestrator.store.keys import JobPaths
from tests.support.cluster import FakeCluster
from tests.support.world import World, train_job

WORKER = RegisteredProcess("worker-0", 7, 1.0, "b2", "n2", "twin")


class AskedCluster(FakeCluster):
    """A cluster that asks nodes as the real one does; two of them bear one name.

    Attributes:
        ray_nodes: What Ray tells of its nodes.
        silent: Those that do not answer.
        boots: Each node's start of its machine.
    """

    def __init__(self) -> None:
        super().__init__()
        hosts = {"n1": "h", "n2": "twin", "n3": "twin"}
        self.ray_nodes: list[dict[str, Any]] = [
            {"NodeID": node, "NodeManagerHostname": host, "Alive": True}
            for node, host in hosts.items()
        ]
        self.silent: set[str] = set()
        self.boots = {"n1": "b", "n2": "b2", "n3": "b3"}

    def alive(self, processes: Iterable[ProcessRef]) -> Sighting:
        """Return the processes that run, or that nobody can say anything of."""
        asked = nodes_to_ask(processes, self.ray_nodes)
        answers = {
            node: None
            if node in self.silent
            else NodeAnswer(self.boots[node], [ref for ref in there if ref.pid in self.running])
            for node, there in asked.by_node.items()
        }
        return sighted(asked, answers)

    def kill(self, processes: Iterable[ProcessRef]) -> None:
        """End processes, where they can be reached."""
        self.running -= {ref.pid for ref in processes if ref.node_id not in self.silent}


@pytest.fixture
def world() -> World:
    """A training that ran on two nodes, of which the worker's fell silent."""
    world = World()
    world.cluster = AskedCluster()
    world.controller = world.new_controller()
    submit_job(world.store, train_job("a"), "a")
    world.step()
    world.begin("a")
    key = f"{JobPaths('a').attempt(1).processes}worker-0-7.json"
    world.store.put(key, REGISTERED_PROCESS.encode(WORKER))
    world.cluster.running.add(7)
    world.step()
    assert world.state("a") == "RUNNING"
    world.cluster.silent.add("n2")
    world.end("a", Outcome(reason=Reason.WORKER_LOST, message="no answer of worker 0"))
    return world


def in_vain(world: World) -> None:
    """Have the loop wait longer than any grace, and see that nothing starts."""
    for _ in range(20):
        world.store.advance(120)
        world.step()
        assert world.state("a") == "STOPPING"
    assert set(world.cluster.started) == {"a.1"}


def test_a_worker_of_a_silent_node_is_waited_for_until_ray_calls_the_node_dead(
    world: World,
) -> None:
    """It may write still; then its job goes on, and the attempt has ended for a reason."""
    in_vain(world)
    cluster = world.cluster
    assert isinstance(cluster, AskedCluster)
    cluster.ray_nodes[1]["Alive"] = False
    world.step()
    assert world.record("a").attempts[0].ended_at is not None
    world.store.advance(3600)
    world.step(2)
    assert set(cluster.started) == {"a.1", "a.2"}


def test_a_worker_that_can_be_asked_again_is_ended_and_its_job_goes_on(world: World) -> None:
    """A node that was out of reach for a while is none that died."""
    in_vain(world)
    cluster = world.cluster
    assert isinstance(cluster, AskedCluster)
    cluster.silent.clear()
    world.store.advance(120)
    world.step(2)
    assert 7 not in cluster.running
    world.store.advance(3600)
    world.step(3)
    assert set(cluster.started) == {"a.1", "a.2"}


def test_a_node_of_the_same_name_proves_nothing(world: World) -> None:
    """It knows nothing of the other's processes, and says so of each."""
    cluster = world.cluster
    assert isinstance(cluster, AskedCluster)
    assert cluster.alive([WORKER]).running == [WORKER]
    cluster.ray_nodes[2]["Alive"] = False
    in_vain(world)


@pytest.fixture
def anew(world: World) -> World:
    """The same after Ray was started anew: the worker's host has not joined, a twin of it has."""
    cluster = world.cluster
    assert isinstance(cluster, AskedCluster)
    cluster.silent.clear()
    cluster.ray_nodes = [
        {"NodeID": node, "NodeManagerHostname": host, "Alive": True}
        for node, host in {"n4": "h", "n5": "twin"}.items()
    ]
    cluster.boots = {"n4": "b", "n5": "b3"}
    cluster.statuses.clear()
    cluster.running.discard(7)  # nobody there can see it: that proves nothing
    world.step(3)
    assert world.state("a") == "STOPPING"
    return world


def test_what_ran_on_a_host_that_a_new_ray_does_not_know_is_waited_for(anew: World) -> None:
    """It counted as gone at once, whether or not it ran: two attempts wrote into one job."""
    anew.store.advance(FORGOTTEN_AFTER_S - 10)
    anew.step()
    assert anew.state("a") == "STOPPING"
    anew.store.advance(20)
    anew.step()
    assert anew.record("a").attempts[0].ended_at is not None


def test_a_host_that_joins_a_new_ray_is_believed_at_once(anew: World) -> None:
    """It bears the start of the machine that the process noted, whatever its name is now."""
    cluster = anew.cluster
    assert isinstance(cluster, AskedCluster)
    cluster.ray_nodes.append({"NodeID": "n6", "NodeManagerHostname": "renamed", "Alive": True})
    cluster.boots["n6"] = "b2"
    cluster.running.add(7)
    in_vain_for = 3 * FORGOTTEN_AFTER_S
    killed, cluster.kill = cluster.kill, lambda processes: None  # type: ignore[method-assign]
    anew.store.advance(in_vain_for)
    anew.step()
    assert anew.state("a") == "STOPPING"  # seen running: no time proves anything
    cluster.kill = killed  # type: ignore[method-assign]
    anew.step(2)
    assert anew.record("a").attempts[0].ended_at is not None
