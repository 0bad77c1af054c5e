"""A job whose spec cannot be read any more still comes to the end that was asked for."""

import pytest

from orchestrator.client.submit import submit_job
from orchestrator.jobs.inbox import Request, Verb, post_request
from orchestrator.jobs.index import read_index
from orchestrator.jobs.troubles import read_troubles
from orchestrator.store.keys import JobPaths
from tests.support.world import World, train_job


@pytest.fixture
def world() -> World:
    """A training that runs, whose spec is torn when another orchestrator takes over."""
    world = World()
    submit_job(world.store, train_job("a"), "a")
    world.step()
    world.begin("a")
    world.step()
    assert world.state("a") == "RUNNING"
    world.store.put(JobPaths("a").spec, b'{"format')
    world.controller = world.new_controller()
    world.step()
    return world


def cancel(world: World) -> None:
    """Ask for its end."""
    asked = Request(job_id="a", verb=Verb.CANCEL, attempt=1, at=world.store.now())
    post_request(world.store, asked)


def test_a_running_job_is_stopped_killed_and_released(world: World) -> None:
    """It stayed STOPPING for ever, and its processes ran on."""
    assert [trouble.job_id for trouble in read_troubles(world.store)] == ["a"]
    cancel(world)
    world.step()
    assert world.state("a") == "STOPPING"
    for _ in range(90):
        world.store.advance(1)
        world.step()
    assert world.cluster.running == set()
    assert world.state("a") == "CANCELLED"
    assert world.records.queued_ids() == []
    assert read_troubles(world.store) == []
    index = read_index(world.store)
    assert index is not None
    assert [entry.state for entry in index.ended] == ["CANCELLED"]


def test_a_queued_job_that_is_cancelled_is_listed_as_such() -> None:
    """Its mark stayed in the queue, and its trouble beside it."""
    world = World()
    submit_job(world.store, train_job("a"), "a")
    world.controller.take_over()  # it writes the record
    world.store.put(JobPaths("a").spec, b'{"format')
    world.controller = world.new_controller()
    cancel(world)
    world.step(2)
    assert world.state("a") == "CANCELLED"
    assert world.records.queued_ids() == []
    assert read_troubles(world.store) == []
