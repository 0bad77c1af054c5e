"""The verbs that start from jobs that there are: `resubmit`, `extend` and `diff`."""

from dataclasses import replace
from pathlib import Path

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.output import Output, output_option
from orchestrator.cli.progress import on_interrupt
from orchestrator.client.describe import describe_plan
from orchestrator.client.ensure import ensure_running
from orchestrator.client.extend import extension
from orchestrator.client.owner import user_name
from orchestrator.client.plan import plan_of_file
from orchestrator.client.prepare import prepared
from orchestrator.client.status import job_status
from orchestrator.client.submit import submit_job
from orchestrator.client.surroundings import Start, Surroundings, surroundings
from orchestrator.counts import counted
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submitted
from orchestrator.specs.again import job_file_again
from orchestrator.specs.asked import fields_that_differ
from orchestrator.specs.files import JobFile


@click.command("resubmit")
@click.argument("job", cls=JobArgument)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Another setting.")
@click.option("--id", "job_id", help="The id of the new job.")
@click.option("--dry-run", is_flag=True, help="Print the plan and submit nothing.")
@output_option
def resubmit_command(
    job: str, overrides: tuple[str, ...], job_id: str | None, dry_run: bool, output: Output
) -> None:
    r"""Queue a job like one that there is, on the same images, with other settings.

    \b
    Examples:
      ddpmctl resubmit digits --set training.learning_rate=3e-4
      ddpmctl resubmit @last --set training.seed=1 --set name=digits-1
    """
    around = surroundings(output.say, Start.NEVER if dry_run else Start.AGAIN, writes=True)
    old = find_job_id(around.store, job)
    again = job_file_again(read_submitted(RecordStore(around.store), old), old, overrides)
    if new := _queued(around, again, job_id, dry_run, output):
        status = job_status(around.store, new) if output.as_json else None
        message = f"{new} queued, like {old}\n  compare them: ddpmctl diff {old} {new}"
        output.result(status, message)


@click.command("extend")
@click.argument("job", cls=JobArgument)
@click.option("--num-steps", type=click.IntRange(1), required=True, help="Steps in all.")
@click.option("--id", "job_id", help="The id of the new job.")
@click.option("--dry-run", is_flag=True, help="Print the plan and submit nothing.")
@output_option
def extend_command(
    job: str, num_steps: int, job_id: str | None, dry_run: bool, output: Output
) -> None:
    r"""Queue a training that goes on where another one ended, to more steps.

    The new job begins with the whole last checkpoint of one that has SUCCEEDED, and takes the steps
    that a longer run would have taken, bit for bit. One whose learning rate depends on its length
    is refused.

    \b
    Example:
      ddpmctl extend digits --num-steps 2000
    """
    around = surroundings(output.say, Start.NEVER if dry_run else Start.AGAIN, writes=True)
    old = find_job_id(around.store, job)
    longer = extension(around.store, old, num_steps)
    if new := _queued(around, longer, job_id, dry_run, output):
        status = job_status(around.store, new) if output.as_json else None
        output.result(status, f"{new} queued, goes on from {old}, to {counted(num_steps, 'step')}")


def _queued(
    around: Surroundings, file: JobFile, job_id: str | None, dry_run: bool, output: Output
) -> str | None:
    """Queue the job of a file and return its id, or print its plan and return None."""
    store = around.store
    ready = prepared(file, Path.cwd(), store, output.say)
    for warning in ready.warnings:
        output.say(f"warning: {warning}")
    if dry_run:
        plan = plan_of_file(ready, store)
        output.result(plan.as_json(), describe_plan(plan))
        return None
    asked = replace(ready.asked, user=user_name())
    new = submit_job(store, ready.spec, job_id, asked).job_id
    with on_interrupt(output, f"queued: {new}"):
        ensure_running(around, output.say)
    return new


@click.command("diff")
@click.argument("job", cls=JobArgument)
@click.argument("other", cls=JobArgument)
@output_option
def diff_command(job: str, other: str, output: Output) -> None:
    r"""Show in which settings two jobs differ.

    \b
    Example:
      ddpmctl diff digits-20261122-153012-k7q2 @last
    """
    store = surroundings(output.say).store
    ids = [find_job_id(store, one) for one in (job, other)]
    one, two = (read_submitted(RecordStore(store), job_id).spec for job_id in ids)
    differences = fields_that_differ(one, two)
    width = max((len(key) for key in differences), default=0)
    lines = [f"{key:<{width}}  {_shown(a)} -> {_shown(b)}" for key, (a, b) in differences.items()]
    value = {"jobs": ids, "settings": {key: list(pair) for key, pair in differences.items()}}
    output.result(value, "\n".join(lines) or f"{ids[0]} and {ids[1]} have the same settings")


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
