"""How often other machines are asked for an attempt's processes: each time costs one there."""

from collections.abc import Iterable

import pytest

from orchestrator.client.status import request
from orchestrator.client.submit import submit_job
from orchestrator.cluster.process_search import ProcessRef, Sighting
from orchestrator.jobs.inbox import Verb
from tests.support.cluster import FakeCluster
from tests.support.world import World, train_job


class CountingCluster(FakeCluster):
    """Counts how often it is asked."""

    looks = 0

    def alive(self, processes: Iterable[ProcessRef]) -> Sighting:
        """Return the processes that a test left running."""
        self.looks += 1
        return super().alive(processes)


@pytest.fixture
def cluster() -> CountingCluster:
    """Which counts."""
    return CountingCluster()


@pytest.fixture
def world(cluster: CountingCluster) -> World:
    """A training that runs."""
    world = World()
    world.cluster = cluster
    world.controller = world.new_controller()
    submit_job(world.store, train_job("a"), "a")
    world.step()
    world.begin("a")
    world.step()
    assert world.state("a") == "RUNNING"
    cluster.looks = 0
    return world


def _minute(world: World, *, beats: bool) -> None:
    for second in range(60):
        if beats and second % 3 == 0:
            world.beat("a", committed=second)
        world.step()


def test_an_attempt_that_is_heard_of_is_looked_for_now_and_then(
    world: World, cluster: CountingCluster
) -> None:
    """Its driver says that all is well."""
    _minute(world, beats=True)
    assert 3 <= cluster.looks <= 6


def test_one_that_falls_silent_is_looked_for_each_time(
    world: World, cluster: CountingCluster
) -> None:
    """As soon as two heartbeats are missing."""
    _minute(world, beats=False)
    assert cluster.looks > 50


def test_one_whose_driver_ray_calls_ended_is_looked_for_at_once(
    world: World, cluster: CountingCluster
) -> None:
    """Its last heartbeat may be new still."""
    world.beat("a", committed=1)
    world.step()
    world.end("a", None)
    world.step(2)
    assert world.record("a").attempts[0].reason == "DRIVER_LOST"


def test_one_that_is_stopped_is_looked_for_each_time(
    world: World, cluster: CountingCluster
) -> None:
    """Nothing else may begin before its processes are proven gone."""
    request(world.store, "a", Verb.CANCEL)
    world.step()
    cluster.looks = 0
    world.step(5)
    assert world.state("a") == "STOPPING"
    assert cluster.looks == 5
