"""A node that is about to leave is treated as preemption there: jobs save their work and move."""

import pytest

from orchestrator.client.submit import submit_job
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState, Reason
from tests.support.world import World, train_job

DRAINING = {"is_draining": True, "free_cpus": 0.0}


def running(world: World, job_id: str) -> str:
    """Have a job's attempt begin, and return its only node."""
    world.step()
    world.begin(job_id)
    world.step()
    (node_id,) = world.record(job_id).attempts[-1].node_ids
    return node_id


def drain(world: World, node_id: str, notice_s: float | None) -> None:
    """Have a node leave."""
    world.cluster.told_of = {node_id: DRAINING}
    world.cluster.notice = notice_s


@pytest.mark.parametrize(("notice_s", "grace_s"), [(28.4, 28.4), (None, 60.0), (600.0, 60.0)])
def test_a_training_saves_within_the_notice_and_goes_on_elsewhere(
    notice_s: float | None, grace_s: float
) -> None:
    """A spot machine gives half a minute: without it, all since the last checkpoint is lost."""
    world = World()
    world.cluster.node_ids = ["n1", "n2"]
    job_id = submit_job(world.store, train_job()).job_id
    first = running(world, job_id)
    drain(world, first, notice_s)
    world.step(2)
    record = world.record(job_id)
    assert (record.state, record.reason) == (JobState.STOPPING, Reason.PREEMPTED)
    assert record.stop_grace_s == grace_s
    left = f", {notice_s:.0f} s are left" if notice_s else ""
    assert record.message == f"node {first} is being drained{left}: it saves its work and moves"
    world.end(job_id, Outcome(stopped=True, progress=7, message="stopped after step 7"))
    world.step(3)
    record = world.record(job_id)
    assert record.attempt == 2
    assert record.attempts[1].node_ids == (({"n1", "n2"} - {first}).pop(),)
    assert record.avoided_nodes == ()  # the node has done nothing wrong


def test_nothing_new_is_placed_on_a_node_that_leaves() -> None:
    """It would be stopped as soon as it runs."""
    world = World()
    drain(world, "n1", None)
    job_id = submit_job(world.store, train_job()).job_id
    world.step(3)
    assert world.record(job_id).state is JobState.QUEUED
    world.cluster.node_ids.append("n2")
    world.step()
    assert world.record(job_id).attempts[0].node_ids == ("n2",)
