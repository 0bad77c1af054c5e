"""An evaluation starts when the sets that it reads have been drawn."""

from orchestrator.client.submit import submit_job
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.evaluate import EvaluateJob, SetRef
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from tests.support.world import World, train_job


def evaluation(of: str, against: str) -> EvaluateJob:
    """Compare two jobs' images."""
    return EvaluateJob(kind="evaluate", name="q", of=SetRef(job=of), against=SetRef(job=against))


def sample_job(model: str) -> SampleJob:
    """Draw one image."""
    return SampleJob(kind="sample", name="s", model=ModelRef(job=model), num_samples=64)


def test_an_evaluation_waits_for_the_end_of_the_set_and_not_for_a_training() -> None:
    """All may be submitted at once; a training's images are there from the beginning."""
    world = World()
    train = submit_job(world.store, train_job("t")).job_id
    drawn = submit_job(world.store, sample_job(train)).job_id
    asked = submit_job(world.store, evaluation(drawn, train)).job_id
    world.step(2)
    assert world.state(asked) == "QUEUED"
    assert world.record(asked).message == f"waits for the end of job {drawn}"
    current = world.records.read(drawn)
    ended = current.record.moved_to(JobState.CANCELLED, at=world.store.now())
    world.records.move(current, ended)
    world.controller = world.new_controller()
    world.step(3)
    assert world.record(asked).message == ""
    world.begin(train)
    world.end(train, Outcome(succeeded=True, progress=10))
    world.step(4)
    assert world.state(asked) == "STARTING"
    assert "orchestrator.evaluation.driver" in world.cluster.started[f"{asked}.1"]


def test_an_evaluation_of_nothing_fails_at_once() -> None:
    """Nobody should wait for a set that nobody draws."""
    world = World()
    asked = submit_job(world.store, evaluation("nobody", "nothing")).job_id
    world.step(2)
    record = world.record(asked)
    assert (record.state, record.reason) == ("FAILED", "BAD_INPUT")
    assert "nobody" in record.message
