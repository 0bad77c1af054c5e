"""The verbs that ask the orchestrator to change a job: `cancel` and `retry`."""

import math
import sys
import time

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.hints import next_step
from orchestrator.cli.listing import matches
from orchestrator.cli.output import Output, output_option
from orchestrator.cli.progress import on_interrupt
from orchestrator.client.asking import ask_and_wait
from orchestrator.client.describe import progress_text
from orchestrator.client.ensure import ensure_running
from orchestrator.client.status import (
    POLL_EVERY_S,
    JobStatus,
    follow,
    job_status,
    list_jobs,
    request,
)
from orchestrator.client.surroundings import Start, Surroundings, surroundings
from orchestrator.counts import counted
from orchestrator.errors import BadInputError, OrchestratorError
from orchestrator.jobs.inbox import DEFAULT_GRACE_S, Verb
from orchestrator.jobs.index import read_index
from orchestrator.jobs.lookup import find_job_id, live_job_id
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.smoke import smoke_job_id
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

CANCEL_MARGIN_S = 60.0
_ROUND_WITHIN_S = 5.0
RETRYABLE = (JobState.FAILED, JobState.CANCELLED)


def _finite(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


@click.command("cancel")
@click.argument("jobs", nargs=-1, cls=JobArgument, metavar="[JOB]...")
@click.option("--name", metavar="PATTERN", help="All live jobs of that name or id: 'digits-*'.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=DEFAULT_GRACE_S,
    show_default=True,
    help="Time to save the work in.",
)
@output_option
def cancel_command(
    jobs: tuple[str, ...], name: str | None, yes: bool, grace_s: float, output: Output
) -> None:
    r"""End jobs; returns when their processes are really gone, and fails if they are not.

    \b
    Examples:
      ddpmctl cancel digits
      ddpmctl cancel digits-20261122-15 other-job
      ddpmctl cancel --name 'digits-*'
    """
    if not jobs and not name:
        raise click.UsageError("name a job, or a pattern with --name")
    around = surroundings(output.say, Start.AGAIN)
    store = around.store
    ids = _named_jobs(store, jobs, name)
    if name and not yes and sys.stdin.isatty():
        question = f"cancel {counted(len(ids), 'job')}: {', '.join(ids)}?"
        if not click.confirm(question, err=True):
            raise BadInputError("nothing was cancelled")
    live = [job_id for job_id in ids if not job_status(store, job_id).state.has_ended]
    with on_interrupt(output, f"asked to cancel {', '.join(ids)}, which goes on without you"):
        for job_id in live:
            request(store, job_id, Verb.CANCEL, grace_s)  # kept, whoever reads it later
        if live:
            ensure_running(around, output.say)
        ends = [_end_of(store, job_id, grace_s, is_live=job_id in live) for job_id in ids]
    statuses: list[JobStatus] = [status for status, _, _ in ends]
    is_one = len(jobs) == 1 and not name
    output.result(statuses[0] if is_one else statuses, "\n".join(text for _, text, _ in ends))
    if is_one:
        output.hint(next_step(statuses[0]))
    sys.exit(0 if all(is_right for _, _, is_right in ends) else 1)


def _named_jobs(store: ObjectStore, jobs: tuple[str, ...], pattern: str | None) -> list[str]:
    """Return the ids of the jobs that are named, each once, and of the live ones of a pattern."""
    ids = [live_job_id(store, job) for job in jobs]
    if pattern:
        live = [job for job in list_jobs(store) if not job.state.has_ended]
        own = [job for job in live if matches(job, pattern)]
        groups = {job.job_id for job in own}
        ids += [job.job_id for job in own if job.parent not in groups]
    if not ids:
        raise BadInputError(f"no live job has a name or an id of the pattern {pattern}")
    return list(dict.fromkeys(ids))


def _end_of(
    store: ObjectStore, job_id: str, grace_s: float, *, is_live: bool
) -> tuple[JobStatus, str, bool]:
    """Return what a job came to, what to say of it, and whether all of it is cancelled."""
    status = job_status(store, job_id)
    if not is_live:
        message = f"{job_id} had ended before: it is {status.state}"
        return status, message, status.state is JobState.CANCELLED
    *_, status = follow(store, job_id, grace_s + CANCEL_MARGIN_S)
    left = _left_of_smoke_test(store, job_id, grace_s)
    is_cancelled = status.state is JobState.CANCELLED
    message = "is cancelled; its processes are gone" if is_cancelled else f"is {status.state}"
    return status, f"{job_id} {message}{left}", is_cancelled and not left


def _left_of_smoke_test(store: ObjectStore, job_id: str, grace_s: float) -> str:
    """Wait for the end of a job's smoke test, which goes with it; say what is left of it."""
    smoke_id = smoke_job_id(job_id)
    if not store.exists(JobPaths(smoke_id).spec):
        return ""
    *_, status = follow(store, smoke_id, grace_s + CANCEL_MARGIN_S)
    return "" if status.state.has_ended else f", but its smoke test {smoke_id} is {status.state}"


@click.command("retry")
@click.argument("job", cls=JobArgument)
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
    output.hint(next_step(status))


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
    with on_interrupt(output, f"asked to retry {job_id}, which goes on without you"):
        ask_and_wait(around, job_id, Verb.RETRY, output.say)
    after = _after_a_round(around.store, job_id)
    if after.changed_at == before.changed_at:
        raise OrchestratorError(f"job {job_id} was not queued again: it is {after.state} still")
    return after


def _after_a_round(store: ObjectStore, job_id: str) -> JobStatus:
    """Return a job's status once the queue was gone through: what fails at once has failed then."""
    deadline = time.monotonic() + _ROUND_WITHIN_S
    while True:
        status, index = job_status(store, job_id), read_index(store)
        listed = {entry.job_id: entry for entry in (index.live if index else ())}
        seen = listed.get(job_id)
        is_over = seen is not None and seen.changed_at >= status.changed_at
        if status.state is not JobState.QUEUED or is_over or time.monotonic() > deadline:
            return status
        time.sleep(POLL_EVERY_S)
