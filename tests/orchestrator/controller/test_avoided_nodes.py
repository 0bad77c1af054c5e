"""A node that breaks a job's attempts is left alone, unless the job fits nowhere else."""

import pytest

from orchestrator.client.submit import submit_job
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState, Reason
from tests.support.world import World, train_job


def break_attempts(world: World, job_id: str, times: int) -> None:
    """Have the job's worker die on its node, again and again."""
    for _ in range(times):
        node = world.record(job_id).attempts[-1].node_ids
        world.begin(job_id)
        world.step()
        world.end(job_id, Outcome(reason=Reason.WORKER_LOST, failed_node_ids=node))
        while world.record(job_id).state is not JobState.QUEUED:
            world.step()
        world.store.advance(400)
        world.step()


def told(world: World, job_id: str) -> str:
    """Return what all events of a job say."""
    return "\n".join(event.message for event in world.records.events(job_id))


def test_a_node_that_broke_three_attempts_is_left_for_another_one() -> None:
    """A machine with bad memory would use up a job's retries, and the event says why not."""
    world = World()
    world.cluster.node_ids = ["n1", "n2"]
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    first = world.record(job_id).attempts[-1].node_ids
    break_attempts(world, job_id, 3)
    record = world.record(job_id)
    assert record.avoided_nodes == first
    assert [a.node_ids for a in record.attempts[:3]] == [first] * 3
    assert record.attempts[3].node_ids != first
    assert f"without the nodes {first[0]}" in told(world, job_id)


def test_a_job_is_not_starved_to_spare_it_a_node() -> None:
    """On the only node that fits it is tried again, and the event says so."""
    world = World()
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    break_attempts(world, job_id, 3)
    record = world.record(job_id)
    assert (record.state, record.attempt) == (JobState.STARTING, 4)
    assert record.avoided_nodes == ("n1",)
    assert "on n1 again, since it fits in no other way" in told(world, job_id)


@pytest.mark.parametrize("knows_after", [0, 1])
def test_a_worker_that_died_with_its_node_is_told_as_the_nodes_loss(knows_after: int) -> None:
    """The record names the node that is gone, though Ray learns of it after the worker's end."""
    world = World()
    world.cluster.node_ids = ["n1", "n2"]
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    (node,) = world.record(job_id).attempts[-1].node_ids
    world.begin(job_id)
    world.step()
    world.end(job_id, Outcome(reason=Reason.WORKER_LOST))
    world.step(knows_after)
    world.cluster.node_ids.remove(node)
    world.step(3)
    attempt = world.record(job_id).attempts[0]
    assert (attempt.reason, attempt.failed_node_ids) == (Reason.NODE_LOST, (node,))
