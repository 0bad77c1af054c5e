"""The verbs that ask the orchestrator to change a job: `cancel` and `retry`."""

import math
import sys
import time
from collections.abc import Callable

import click

from orchestrator.cli.output import Output, output_option
from orchestrator.cli.show import progress_text
from orchestrator.client.ensure import ensure_running
from orchestrator.client.status import POLL_EVERY_S, JobStatus, follow, job_status, request
from orchestrator.client.surroundings import Start, Surroundings, surroundings
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.inbox import DEFAULT_GRACE_S, Verb
from orchestrator.jobs.lookup import find_job_id, live_job_id
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.smoke import smoke_job_id
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

CANCEL_MARGIN_S = 60.0
REQUEST_TIMEOUT_S = 60.0
RETRYABLE = (JobState.FAILED, JobState.CANCELLED)


def _finite(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


@click.command("cancel")
@click.argument("job")
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=DEFAULT_GRACE_S,
    show_default=True,
    help="Time to save the work in.",
)
@output_option
def cancel_command(job: str, grace_s: float, output: Output) -> None:
    """End a job; returns when its processes are really gone, and fails if they are not."""
    around = surroundings(output.say, Start.AGAIN)
    store = around.store
    job_id = live_job_id(store, job)
    status = job_status(store, job_id)
    if status.state.has_ended:
        output.result(status, f"{job_id} had ended before: it is {status.state}")
        sys.exit(0 if status.state is JobState.CANCELLED else 1)
    request(store, job_id, Verb.CANCEL, grace_s)  # kept, whoever reads it later
    ensure_running(around, output.say)
    *_, status = follow(store, job_id, grace_s + CANCEL_MARGIN_S)
    left = _left_of_smoke_test(store, job_id, grace_s)
    is_cancelled = status.state is JobState.CANCELLED
    told = "is cancelled; its processes are gone" if is_cancelled else f"is {status.state}"
    output.result(status, f"{job_id} {told}{left}")
    sys.exit(0 if is_cancelled and not left else 1)


def _left_of_smoke_test(store: ObjectStore, job_id: str, grace_s: float) -> str:
    """Wait for the end of a job's smoke test, which goes with it; say what is left of it."""
    smoke_id = smoke_job_id(job_id)
    if not store.exists(JobPaths(smoke_id).spec):
        return ""
    *_, status = follow(store, smoke_id, grace_s + CANCEL_MARGIN_S)
    return "" if status.state.has_ended else f", but its smoke test {smoke_id} is {status.state}"


@click.command("retry")
@click.argument("job")
@output_option
def retry_command(job: str, output: Output) -> None:
    """Queue a failed or cancelled job again; it goes on from what it has committed."""
    around = surroundings(output.say, Start.AGAIN)
    job_id = find_job_id(around.store, job)
    status = retry_job(output, around, job_id)
    if status.state in RETRYABLE:
        output.result(
            status, f"{job_id} was queued again and is {status.state} again: {status.message}"
        )
        sys.exit(1)
    done = f", after {progress_text(status)}" if status.done else ""
    output.result(status, f"{job_id} was queued again and is {status.state}{done}")


def retry_job(output: Output, around: Surroundings, job_id: str) -> JobStatus:
    """Have a failed or cancelled job queued again and return its status.

    Raises:
        OrchestratorError: It is neither, or nobody reads the request.
    """
    before = job_status(around.store, job_id)
    if before.state not in RETRYABLE:
        raise OrchestratorError(
            f"job {job_id} is {before.state}; only FAILED and CANCELLED jobs can be retried"
        )
    ask_and_wait(around, job_id, Verb.RETRY, output.say)
    after = job_status(around.store, job_id)
    if after.changed_at == before.changed_at:
        raise OrchestratorError(f"job {job_id} was not queued again: it is {after.state} still")
    return after


def ask_and_wait(around: Surroundings, job_id: str, verb: Verb, say: Callable[[str], None]) -> None:
    """Ask the orchestrator for something, have it run, and wait until it has read that.

    Raises:
        OrchestratorError: Nobody reads the request; it stays in the store.
    """
    store = around.store
    key = request(store, job_id, verb)
    ensure_running(around, say)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while store.exists(key):
        if time.monotonic() > deadline:
            raise OrchestratorError(
                f"the orchestrator did not read the request in {REQUEST_TIMEOUT_S:g} s; "
                "see `ddpmctl doctor`"
            )
        time.sleep(POLL_EVERY_S)
