"""What people do next, said where a verb ends."""

from orchestrator.client.status import JobStatus
from orchestrator.lifecycle.state import JobState


def next_step(status: JobStatus) -> str:
    """Return the verb that most people call next of a job; "" where there is none."""
    job = status.job_id
    if status.stale:
        return f"  nobody confirms that: ddpmctl wait {job} has the orchestrator run again"
    by_state = {
        JobState.QUEUED: f"  why it waits: ddpmctl explain {job}",
        JobState.STARTING: f"  follow it: ddpmctl wait {job}",
        JobState.RUNNING: f"  follow it: ddpmctl wait {job}",
        JobState.FAILED: f"  why: ddpmctl logs {job} --tail 20; again: ddpmctl retry {job}",
        JobState.CANCELLED: f"  go on with it: ddpmctl retry {job}",
        JobState.SUCCEEDED: _after_success(status.kind, job),
    }
    return by_state.get(status.state, "")


def _after_success(kind: str, job: str) -> str:
    return {
        "train": f"  draw from it: a sample job with model: {{job: {job}}}",
        "sample": f"  see it: ddpmctl samples grid {job} --to {job}.png",
        "evaluate": f"  its numbers: ddpmctl compare {job}",
    }.get(kind, "")
