"""The verb `submit`."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from orchestrator.cli.jobs import wait_for
from orchestrator.cli.output import Output, exit_code_of, output_option
from orchestrator.cli.show import describe_plan
from orchestrator.client.ensure import ensure_running
from orchestrator.client.owner import user_name
from orchestrator.client.plan import plan_of
from orchestrator.client.prepare import check_sources, prepared
from orchestrator.client.status import job_status
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.client.surroundings import Start, surroundings
from orchestrator.specs.files import load_job_file


@click.command("submit")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field.")
@click.option("--id", "job_id", help="Submitting the same id and spec twice is submitting once.")
@click.option("--dry-run", is_flag=True, help="Print the plan and submit nothing.")
@click.option("--smoke", is_flag=True, help="First a one-worker job that looks whether it works.")
@click.option("--wait", "stay", is_flag=True, help="Wait for the end; see `wait`.")
@output_option
def submit_command(
    file: Path,
    overrides: tuple[str, ...],
    job_id: str | None,
    dry_run: bool,
    smoke: bool,
    stay: bool,
    output: Output,
) -> None:
    """Check a job file and put the job, pipeline or sweep into the queue."""
    job_file = load_job_file(file, overrides, os.environ)
    check_sources(job_file, file.parent)
    start = Start.NEVER if dry_run else Start.FRESH
    around = surroundings(output.say, start, writes=True)  # a dry run reads the images in, too
    store = around.store
    job_file = prepared(job_file, file.parent, store, output.say)
    spec = job_file.spec
    for warning in job_file.warnings:
        output.say(f"warning: {warning}")
    if dry_run:
        plan = {**plan_of(spec, store), "warnings": list(job_file.warnings)}
        output.result(plan, describe_plan(plan))
        return
    submission = (submit_with_smoke if smoke else submit_job)(
        store, spec, job_id, replace(job_file.asked, user=user_name())
    )
    ensure_running(around, output.say)
    if stay:
        sys.exit(exit_code_of(wait_for(output, around, submission.job_id, None).state))
    told = "queued" if submission.is_new else "exists already, with the same spec"
    # The status costs seven requests, which the text does not need.
    status = job_status(store, submission.job_id) if output.as_json else None
    text = f"{submission.job_id} {told}\n  follow it: ddpmctl wait {spec.name}"
    page = around.mlflow_page()
    text += f"\n  its run:   {page}" if page else ""
    output.result(status, text)
