"""Whether a job's smoke test lets it start."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from orchestrator.controller.adoption import LiveJob
from orchestrator.errors import JobNotFoundError, StoredFormError
from orchestrator.jobs.inbox import Request, Verb
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobRecord, JobState, Reason

_OF_A_CPU = (Reason.TIMED_OUT, Reason.OUT_OF_MEMORY)


@dataclass(frozen=True)
class Gate:
    """What a smoke test says to the job that waits for it.

    Attributes:
        is_open: The job may start.
        reason: Why it never will; None while that is not known.
        message: One line for a reader.
    """

    is_open: bool
    reason: Reason | None = None
    message: str = ""


def smoke_gate(smoke: JobRecord | None, *, wants_gpu: bool = False) -> Gate:
    """Return what a smoke test's record says; without one (it was deleted), nothing holds.

    Args:
        smoke: The record.
        wants_gpu: Whether the main job will have a GPU: then what a smoke test on a CPU took too
            long for, or had too little memory for, says nothing.
    """
    if smoke is None or smoke.state is JobState.SUCCEEDED:
        return Gate(is_open=True)
    had_gpu = smoke.resources is None or smoke.resources.gpus_per_worker > 0
    if smoke.state is JobState.FAILED and smoke.reason in _OF_A_CPU and wants_gpu and not had_gpu:
        return Gate(is_open=True)
    if not smoke.state.has_ended:
        return Gate(is_open=False, message=f"waits for its smoke test {smoke.job_id}")
    text = f"its smoke test {smoke.job_id} is {smoke.state}"
    message = f"{text}: {smoke.message}" if smoke.message else text
    return Gate(is_open=False, reason=smoke.reason or Reason.USER_CODE, message=message)


def read_gate(records: RecordStore, smoke_id: str, *, wants_gpu: bool = False) -> Gate:
    """Return what a smoke test that is not live says; arguments as for `smoke_gate`."""
    try:
        return smoke_gate(records.read(smoke_id).record, wants_gpu=wants_gpu)
    except JobNotFoundError:
        return smoke_gate(None)


def cancels_of_smoke(
    records: RecordStore, asked: Request, live: Mapping[str, LiveJob]
) -> Iterator[Request]:
    """Yield the request by which a job's smoke test is cancelled with it, if it is.

    The job may be let go of already: whoever handled its cancel died, or was refused this.

    Args:
        records: The jobs.
        asked: What was asked of the job.
        live: All that have not ended, by id.
    """
    if asked.verb is not Verb.CANCEL:
        return
    try:
        smoke_id = records.stored_spec(asked.job_id).origin.waits_for_smoke
    except (JobNotFoundError, StoredFormError):  # somebody deletes it, or it is damaged
        return
    if _goes_too(smoke_id, asked.job_id, live):
        yield replace(asked, job_id=smoke_id, attempt=live[smoke_id].record.attempt)


def _goes_too(smoke_id: str, cancelled: str, live: Mapping[str, LiveJob]) -> bool:
    """Tell whether a smoke test is cancelled with a job that waits for it: no other one does.

    Args:
        smoke_id: The smoke test; "" for none.
        cancelled: The job.
        live: All that have not ended, by id.
    """
    smoke = live.get(smoke_id)
    if smoke is None or smoke.record.state.has_ended:
        return False
    others = [other for other in live.values() if other.record.job_id != cancelled]
    waiting = [other for other in others if other.origin.waits_for_smoke == smoke_id]
    return not any(other.record.state is JobState.QUEUED for other in waiting)
