"""A job that has spent its GPU-hours saves its work and ends; a retry gives it as many again."""

from orchestrator.client.status import job_status, request
from orchestrator.client.submit import submit_job
from orchestrator.jobs.inbox import Verb
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState, Reason
from tests.support.world import World, train_job


def test_spent_gpu_hours_end_a_job_with_its_work_saved() -> None:
    """A slip of a setting must not cost a month's GPUs, nor what was trained so far."""
    world = World()
    world.cluster.gpus = 2
    job_id = submit_job(world.store, train_job(workers=2, max_gpu_hours=1.0)).job_id
    world.step()
    world.begin(job_id)
    world.step(2)
    world.store.advance(1700)
    world.step()
    assert world.record(job_id).state is JobState.RUNNING
    assert 0.9 < job_status(world.store, job_id).gpu_hours < 1.0
    world.store.advance(100)
    world.step()
    record = world.record(job_id)
    assert (record.state, record.reason) == (JobState.STOPPING, Reason.GPU_HOURS_SPENT)
    assert record.stop_grace_s > 0  # for a checkpoint
    world.end(job_id, Outcome(stopped=True, progress=7, message="stopped after step 7"))
    world.step(3)
    record = world.record(job_id)
    assert record.state is JobState.FAILED
    assert "it has spent its max_gpu_hours (1)" in record.message
    request(world.store, job_id, Verb.RETRY)
    world.step(2)
    assert (world.record(job_id).state, world.record(job_id).attempt) == (JobState.STARTING, 2)
    assert job_status(world.store, job_id).gpu_hours < 0.1
