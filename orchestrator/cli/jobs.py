"""The verbs that look at a job: `status` and `wait`."""

import math
import sys
import time
from contextlib import suppress
from dataclasses import replace

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.hints import next_step
from orchestrator.cli.output import Output, exit_code_of, output_option
from orchestrator.cli.progress import PLAIN_EVERY_S, ProgressView, going_on, on_interrupt
from orchestrator.cli.screen import Screen, is_screen
from orchestrator.cli.terminal import color_option, job_text, shortened_to_end
from orchestrator.client.describe import describe_job, state_text
from orchestrator.client.ensure import Keeper, ensure_orchestrator, ensure_running
from orchestrator.client.status import JobStatus, follow, job_status
from orchestrator.client.surroundings import Start, Surroundings, surroundings
from orchestrator.errors import RayUnavailableError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.store.objects import ObjectStore


@click.command("status")
@click.argument("job", cls=JobArgument)
@click.option("-w", "--watch", "stay", is_flag=True, help="Go on until the job has ended.")
@color_option
@output_option
def status_command(job: str, stay: bool, output: Output) -> None:
    r"""Show one job in full; JOB is an id, a name (its newest job), or @last.

    With -w a terminal shows it anew again and again; elsewhere it is printed whenever it changes,
    in JSON one object a line. Ctrl-C leaves the job running.

    \b
    Examples:
      ddpmctl status digits
      ddpmctl status @last -w
    """
    around = surroundings(output.say)
    status = with_page(job_status(around.store, job), around)
    if stay:
        status = with_page(_watched(output, around.store, status.job_id), around)
        if output.as_json:
            return  # the last line is the last status
    output.result(status, job_text(status))
    output.hint(next_step(status))


def _watched(output: Output, store: ObjectStore, job_id: str) -> JobStatus:
    """Show a job again and again until it has ended, or somebody ends that; return its last."""
    last = job_status(store, job_id)
    with suppress(KeyboardInterrupt):
        if is_screen() and not output.as_json:
            color = click.get_current_context().color is not False
            with Screen(color) as screen:
                for last in follow(store, job_id, None):
                    lines = [f"{last.confirmed_at:%H:%M:%S}", "", *job_text(last).splitlines()]
                    screen.draw([shortened_to_end(line, screen.size[0]) for line in lines])
            return last
        said, said_at = "", 0.0
        for last in follow(store, job_id, None):
            is_due = time.monotonic() - said_at >= PLAIN_EVERY_S
            if not last.state.has_ended and (is_due or state_text(last) != said):
                said, said_at = state_text(last), time.monotonic()
                output.line(last, describe_job(last))
    if output.as_json:
        output.line(last, "")
    return last


@click.command("wait")
@click.argument("job", cls=JobArgument)
@click.option("--timeout-s", type=click.FloatRange(min=0), help="Give up waiting after this.")
@output_option
def wait_command(job: str, timeout_s: float | None, output: Output) -> None:
    """Wait until a job has ended; the exit code says how.

    0 succeeded, 100 failed, 101 not ended in time, 103 cancelled. Ctrl-C leaves the job running.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    around = surroundings(output.say, Start.AGAIN if timeout_s is None else Start.NEVER)
    job_id = find_job_id(around.store, job)
    with on_interrupt(output, going_on(job_id)):
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
    output.result(last, job_text(last))
    output.hint(next_step(last))
    return last


def watch(
    output: Output, store: ObjectStore, job_id: str, timeout_s: float | None = None
) -> JobStatus:
    """Wait for a job's end, showing its progress; return its last status."""
    last: JobStatus | None = None
    keeper = Keeper(store, output.say)
    with on_interrupt(output, going_on(job_id)), ProgressView(output.as_json) as view:
        for last in follow(store, job_id, timeout_s):
            view.show(last)
            keeper.look()
    return last or job_status(store, job_id)
