"""The cluster grows with the queue: what waits is asked for, and what is idle is let go."""

from orchestrator.client.submit import submit_job
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState
from orchestrator.scheduling.demand import Bundle
from orchestrator.scheduling.nodes import NodeType
from tests.support.world import World, train_job


def growing() -> World:
    """Return a world with a head that has no CPUs, and an autoscaler with GPU nodes."""
    world = World()
    world.cluster.cpus = 0
    world.cluster.node_ids = ["head"]
    world.cluster.types = [
        NodeType(name="gpu", cpus=8, gpus=2, memory_gb=64, accelerator="H100", max_count=3)
    ]
    return world


def test_a_job_brings_its_nodes_and_lets_them_go() -> None:
    """`auto` is a GPU, though none is up; a wish that changed nothing is told once in a while."""
    world = growing()
    job_id = submit_job(world.store, train_job(workers=4)).job_id
    world.step(5)
    gang = (Bundle(cpus=4.0, gpus=1.0),) * 4
    assert world.cluster.wishes == [gang]
    assert world.record(job_id).state is JobState.QUEUED
    for name in ("n1", "n2"):
        world.cluster.node_ids.append(name)
        world.cluster.told_of[name] = {
            "cpus": 8.0, "free_cpus": 8.0, "gpus": 2.0, "free_gpus": 2.0,
            "labels": {"ray.io/node-group": "gpu"},
        }  # fmt: skip
    world.step(2)
    record = world.record(job_id)
    assert (record.state, record.attempts[0].node_ids) == (JobState.STARTING, ("n1", "n2"))
    assert world.cluster.wishes == [gang]  # what runs is what was wished for
    world.begin(job_id)
    world.step(30)
    assert set(world.cluster.wishes) == {gang}
    assert len(world.cluster.wishes) == 2  # told again, in case the actor was lost
    world.end(job_id, Outcome(succeeded=True, progress=10))
    world.step(3)
    assert world.record(job_id).state is JobState.SUCCEEDED
    assert world.cluster.wishes[-1] == ()


def test_a_new_orchestrator_tells_the_wish_anew() -> None:
    """The one before may have died with its wish untold, or told and out of date."""
    world = growing()
    submit_job(world.store, train_job())
    world.step(2)
    world.controller = world.new_controller()
    world.step()
    assert len(world.cluster.wishes) == 2


def test_a_cluster_without_autoscaler_is_asked_for_nothing() -> None:
    """An actor more on each cluster would be for nothing."""
    world = World()
    submit_job(world.store, train_job())
    world.step(3)
    assert world.cluster.wishes == []
