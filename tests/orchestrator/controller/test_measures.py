"""What is told of the queue, of GPUs, commits and faults, by hand-made rounds of the loop."""

import json
from typing import Any

import pytest

from orchestrator.client.submit import submit_job
from orchestrator.cluster.exporter import Metric
from orchestrator.controller import measures
from orchestrator.controller.measures import METRICS, Use
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import Reason
from orchestrator.specs.kinds import stored_job
from orchestrator.store.keys import JobPaths
from tests.support.world import World, train_job


def told(world: World, metric: Metric, *tags: str) -> float:
    """A number as it is exported now."""
    return world.controller.measures.numbers(0.25)[metric][tags]


def beat(world: World, job_id: str, **said: Any) -> None:
    """Write a heartbeat of the current attempt."""
    attempt = JobPaths(job_id).attempt(world.record(job_id).attempt)
    value = {"at": world.store.now().isoformat(), "phase": "running", **said}
    world.store.put(attempt.heartbeat, json.dumps(value).encode())


@pytest.fixture
def world() -> World:
    """A machine with four GPUs."""
    world = World()
    world.cluster.gpus = 4.0
    world.step()
    return world


def running(world: World, gpus: float = 1) -> str:
    """A training that works, on some GPUs."""
    spec = train_job(asks={"gpus_per_worker": gpus}, retry={"worker_lost": {"backoff_s": 0}})
    job_id = submit_job(world.store, spec).job_id
    world.step()
    world.begin(job_id)
    world.step()
    return job_id


def hours(world: World, use: Use) -> float:
    """GPU-seconds of a use, in hours as exported."""
    return round(told(world, measures.GPU_HOURS, use) * 3600, 6)


def test_every_metric_has_a_series_before_anything_happens(world: World) -> None:
    """A series that begins at its first fault hides that fault from `rate`."""
    world.step()
    numbers = world.controller.measures.numbers(0.25)
    assert set(numbers) == set(METRICS)
    assert all(values for values in numbers.values())
    for metric, values in numbers.items():
        assert all(len(tags) == len(metric.tags) for tags in values)
    assert told(world, measures.LOOP) == 0.25


def test_the_queue_is_told_by_queue_and_priority_with_the_age_of_the_oldest(world: World) -> None:
    """Jobs of one priority that wait for hours are lost in the sum of all."""
    big = {"cpus_per_worker": 64}
    for name, priority in (("a", 50), ("b", 50), ("c", 80)):
        submit_job(world.store, train_job(name, queue="team", priority=priority, asks=big))
        world.store.advance(10)
    world.step()
    assert told(world, measures.QUEUE_DEPTH, "team", "50") == 2
    assert told(world, measures.QUEUE_DEPTH, "team", "80") == 1
    assert told(world, measures.QUEUE_AGE, "team", "50") == 31
    assert told(world, measures.QUEUE_AGE, "team", "80") == 11
    assert told(world, measures.JOBS, "QUEUED") == 3


def test_gpu_hours_are_split_into_starting_useful_and_idle(world: World) -> None:
    """Their sum is what the cluster has, so that nothing is hidden."""
    job_id = running(world, gpus=3)
    before = {use: hours(world, use) for use in Use}
    beat(world, job_id, done=4, total=10)
    world.step(10)
    gained = {use: hours(world, use) - before[use] for use in Use}
    assert gained == {Use.USEFUL: 30, Use.REDONE: 0, Use.STARTING: 0, Use.IDLE: 10}
    assert before[Use.STARTING] == 3


def test_work_that_an_earlier_attempt_had_done_is_redone(world: World) -> None:
    """Steps since the last checkpoint are what a fault costs."""
    job_id = running(world)
    beat(world, job_id, done=6, committed=4, total=10)
    world.step()
    world.end(job_id, Outcome(succeeded=False, reason=Reason.WORKER_LOST, message="gone"))
    world.step(4)
    assert world.record(job_id).attempt == 2
    world.begin(job_id, pid=101)
    beat(world, job_id, done=5, committed=4, total=10)
    world.step()
    before = {use: hours(world, use) for use in Use}
    world.step(5)
    assert hours(world, Use.REDONE) - before[Use.REDONE] == 5
    beat(world, job_id, done=7, committed=4, total=10)
    world.step(3)
    assert hours(world, Use.USEFUL) - before[Use.USEFUL] == 3


def test_faults_are_counted_by_cause_and_once(world: World) -> None:
    """An attempt that ended stays ended in every later round."""
    job_id = running(world)
    world.end(job_id, Outcome(succeeded=False, reason=Reason.WORKER_LOST, message="gone"))
    world.step(8)
    assert told(world, measures.FAULTS, Reason.WORKER_LOST) == 1
    assert told(world, measures.FAULTS, Reason.DIVERGED) == 0


def test_an_orchestrator_that_takes_over_counts_no_fault_of_before(world: World) -> None:
    """Its predecessor exported them; counted again, a restart would look like trouble."""
    job_id = running(world)
    world.end(job_id, Outcome(succeeded=False, reason=Reason.WORKER_LOST, message="gone"))
    world.step(4)
    world.controller = world.new_controller()
    world.step(3)
    assert told(world, measures.FAULTS, Reason.WORKER_LOST) == 0
    assert world.record(job_id).attempt == 2


def test_each_commit_of_a_training_is_a_checkpoint(world: World) -> None:
    """What was committed before does not count again with the next attempt."""
    job_id = running(world)
    for committed in (2, 2, 4, 6):
        beat(world, job_id, done=committed, committed=committed, total=10)
        world.step()
    assert told(world, measures.CHECKPOINTS) == 3


def test_the_pace_of_images_is_told_in_shards_too(world: World) -> None:
    """A fleet commits shards; its pace in them says when the next is safe."""
    spec = stored_job(
        {
            "kind": "sample",
            "name": "s",
            "model": {"checkpoint": "/nowhere"},
            "num_samples": 4096,
            "shard_size": 512,
            "sampling": {"microbatch_size": 64},
        }
    )
    assert spec.images_per_shard == 512
    job_id = running(world)
    beat(world, job_id, done=1, rate_per_s=12.5)
    world.step()
    assert told(world, measures.STEPS) == 12.5
    (job,) = world.controller.jobs.values()
    job.spec = spec
    job.current.record.__dict__["kind"] = "sample"
    world.controller.measures.look([job], world.cluster.nodes(), world.store.now())
    assert told(world, measures.IMAGES, "sample") == 12.5
    assert told(world, measures.SHARDS) == 12.5 / 512
    assert told(world, measures.STEPS) == 0


def test_a_long_gap_counts_for_nothing(world: World) -> None:
    """A machine that slept for a night has not idled away its GPUs' hours."""
    world.step()
    before = hours(world, Use.IDLE)
    world.store.advance(8 * 3600)
    world.step()
    assert hours(world, Use.IDLE) == before
