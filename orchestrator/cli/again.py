"""The verbs that start from jobs that there are: `resubmit` and `diff`."""

from dataclasses import replace
from pathlib import Path

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.output import Output, output_option
from orchestrator.client.describe import describe_plan
from orchestrator.client.ensure import ensure_running
from orchestrator.client.owner import user_name
from orchestrator.client.plan import plan_of
from orchestrator.client.prepare import prepared
from orchestrator.client.status import job_status
from orchestrator.client.submit import submit_job
from orchestrator.client.surroundings import Start, surroundings
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submitted
from orchestrator.specs.again import job_file_again
from orchestrator.specs.asked import fields_that_differ


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
    store = around.store
    old = find_job_id(store, job)
    again = job_file_again(read_submitted(RecordStore(store), old), old, overrides)
    again = prepared(again, Path.cwd(), store, output.say)
    for warning in again.warnings:
        output.say(f"warning: {warning}")
    if dry_run:
        plan = {**plan_of(again.spec, store), "warnings": list(again.warnings)}
        output.result(plan, describe_plan(plan))
        return
    asked = replace(again.asked, user=user_name())
    new = submit_job(store, again.spec, job_id, asked).job_id
    ensure_running(around, output.say)
    status = job_status(store, new) if output.as_json else None
    output.result(status, f"{new} queued, like {old}\n  compare them: ddpmctl diff {old} {new}")


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
    found = fields_that_differ(one, two)
    width = max((len(key) for key in found), default=0)
    lines = [f"{key:<{width}}  {_shown(a)} -> {_shown(b)}" for key, (a, b) in found.items()]
    value = {"jobs": ids, "settings": {key: list(pair) for key, pair in found.items()}}
    output.result(value, "\n".join(lines) or f"{ids[0]} and {ids[1]} have the same settings")


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
