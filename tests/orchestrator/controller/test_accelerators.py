"""A training goes on with the type of GPU that it began with."""

from orchestrator.client.submit import submit_job
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState, Reason
from tests.support.world import World, train_job


def world_of(**types: str) -> World:
    """Return a world with a node of four GPUs for each name, of that type."""
    world = World()
    world.cluster.gpus, world.cluster.node_ids = 4, list(types)
    world.cluster.told_of = {name: {"accelerator": kind} for name, kind in types.items()}
    return world


def lose_node(world: World, job_id: str, node: str) -> None:
    """Have the node of a job's attempt go, and the job with it."""
    world.begin(job_id)
    world.step()
    world.cluster.node_ids.remove(node)
    world.end(job_id, Outcome(reason=Reason.WORKER_LOST))
    while world.record(job_id).state.has_processes and world.record(job_id).attempt == 1:
        world.step()
    world.store.advance(400)
    world.step(2)


def test_the_first_attempt_fixes_the_type() -> None:
    """Half a run on each type has bits that nobody can compute again: it waits for its own."""
    world = world_of(n1="A100", n2="H100")
    job_id = submit_job(world.store, train_job(asks={"accelerator": ["H100", "A100"]})).job_id
    world.step()
    assert world.record(job_id).attempts[0].node_ids == ("n2",)
    lose_node(world, job_id, "n2")
    record = world.record(job_id)
    assert (record.state, record.attempt) == (JobState.QUEUED, 1)
    assert record.resources is not None
    assert record.resources.accelerator == "H100"
    world.cluster.node_ids.append("n3")
    world.cluster.told_of["n3"] = {"accelerator": "H100"}
    world.step()
    assert world.record(job_id).attempts[1].node_ids == ("n3",)


def test_who_does_not_mind_goes_on_with_another_type() -> None:
    """Who would rather end than have the same bits says so in the job file."""
    world = world_of(n1="A100", n2="H100")
    asks = {"accelerator": ["H100", "A100"], "allow_other_accelerator": True}
    job_id = submit_job(world.store, train_job(asks=asks)).job_id
    world.step()
    lose_node(world, job_id, "n2")
    assert [a.node_ids for a in world.record(job_id).attempts] == [("n2",), ("n1",)]


def test_auto_is_a_gpu_where_a_type_is_asked_for() -> None:
    """Whoever names a type wants a GPU, though no node has one yet."""
    world = world_of(n1="")
    world.cluster.gpus = 0
    job_id = submit_job(world.store, train_job(asks={"accelerator": "H100"})).job_id
    world.step()
    assert world.record(job_id).state is JobState.QUEUED


def test_memory_and_labels_reach_the_placement() -> None:
    """Ray must count the memory too, or somebody else's job gets it."""
    world = World()
    world.cluster.node_ids = ["n1", "n2"]
    world.cluster.told_of = {
        name: {"memory_gb": 64.0, "free_memory_gb": 64.0, "labels": {"zone": zone}}
        for name, zone in (("n1", "a"), ("n2", "b"))
    }
    asks = {"memory_gb": 40.0, "labels": {"zone": "b"}}
    first, second = (
        submit_job(world.store, train_job(name=name, asks=asks)).job_id for name in ("a", "b")
    )
    world.step()
    placement = world.record(first).placement
    assert placement is not None
    assert (placement.workers_by_node, placement.memory_gb_per_worker) == ({"n2": 1}, 40.0)
    assert world.record(second).state is JobState.QUEUED
