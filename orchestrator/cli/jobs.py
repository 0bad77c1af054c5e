"""The verbs that look at a job: `status`, `events`, `wait`."""

import math
import sys
import time
from dataclasses import replace

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.output import Output, exit_code_of, output_option
from orchestrator.cli.progress import ProgressView
from orchestrator.client.describe import describe_event, describe_job
from orchestrator.client.ensure import Keeper, ensure_orchestrator, ensure_running
from orchestrator.client.status import POLL_EVERY_S, JobStatus, follow, job_status
from orchestrator.client.surroundings import Start, Surroundings, surroundings
from orchestrator.errors import RayUnavailableError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.store.objects import ObjectStore


@click.command("status")
@click.argument("job", cls=JobArgument)
@output_option
def status_command(job: str, output: Output) -> None:
    """Show one job in full; JOB is an id, or a name (its newest job)."""
    around = surroundings(output.say)
    status = with_page(job_status(around.store, job), around)
    output.result(status, describe_job(status))


@click.command("events")
@click.argument("job", cls=JobArgument)
@click.option("-f", "--follow", "stay", is_flag=True, help="Go on until the job has ended.")
@output_option
def events_command(job: str, stay: bool, output: Output) -> None:
    """Show what happened to a job; with -f, JSON is one object a line."""
    store = surroundings(output.say).store
    job_id, records = find_job_id(store, job), RecordStore(store)
    if output.as_json and not stay:
        output.result(records.events(job_id))
        return
    seen = 0
    while True:
        ended = records.read(job_id).record.state.has_ended
        for event in records.events(job_id, after=seen):
            seen = event.number
            output.line(event, describe_event(event))
        if not stay or ended:
            return
        time.sleep(POLL_EVERY_S)


@click.command("wait")
@click.argument("job", cls=JobArgument)
@click.option("--timeout-s", type=click.FloatRange(min=0), help="Give up waiting after this.")
@output_option
def wait_command(job: str, timeout_s: float | None, output: Output) -> None:
    """Wait until a job has ended; the exit code tells how.

    0 succeeded, 100 failed, 101 not ended in time, 103 cancelled. Ctrl-C leaves the job running.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    around = surroundings(output.say, Start.AGAIN if timeout_s is None else Start.NEVER)
    job_id = find_job_id(around.store, job)
    _see_that_it_moves(around, output, deadline)
    left_s = None if timeout_s is None else max(0.0, deadline - time.monotonic())
    sys.exit(exit_code_of(wait_for(output, around, job_id, left_s).state))


def _see_that_it_moves(around: Surroundings, output: Output, deadline: float) -> None:
    """Have the orchestrator run; with an end to the waiting nothing is started but that."""
    if deadline == math.inf:
        ensure_running(around, output.say)
        return
    try:
        left_s = deadline - time.monotonic()
        ensure_orchestrator(around.store, output.say, within_s=left_s)
    except RayUnavailableError as error:
        output.say(f"the job waits: {error}")


def with_page(status: JobStatus, around: Surroundings) -> JobStatus:
    """Return a status with the page of its experiment, once there is one."""
    page = around.mlflow_page(status.experiment_id) if status.experiment_id else ""
    return replace(status, mlflow_page=page)


def wait_for(
    output: Output, around: Surroundings, job_id: str, timeout_s: float | None
) -> JobStatus:
    """Wait for a job's end, showing its progress; give and return its last status."""
    last = with_page(watch(output, around.store, job_id, timeout_s), around)
    output.result(last, describe_job(last))
    return last


def watch(
    output: Output, store: ObjectStore, job_id: str, timeout_s: float | None = None
) -> JobStatus:
    """Wait for a job's end, showing its progress; return its last status."""
    last: JobStatus | None = None
    keeper = Keeper(store, output.say)
    with ProgressView(output.as_json) as view:
        for last in follow(store, job_id, timeout_s):
            view.show(last)
            keeper.look()
    return last or job_status(store, job_id)
