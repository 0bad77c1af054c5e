"""The verbs that remove: `delete` and `gc`."""

import sys
from dataclasses import asdict

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.output import Output, output_option
from orchestrator.client.deletion import Removed, delete_job, end_evaluations, find_deletable
from orchestrator.client.describe import bytes_text
from orchestrator.client.ensure import ensure_running
from orchestrator.client.garbage import Garbage, collect_garbage
from orchestrator.client.status import job_status
from orchestrator.client.surroundings import Start, surroundings
from orchestrator.counts import counted
from orchestrator.errors import BadInputError


@click.command("delete")
@click.argument("job", cls=JobArgument)
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option("--force", is_flag=True, help="Also where the job's record cannot be read.")
@output_option
def delete_command(job: str, yes: bool, force: bool, output: Output) -> None:
    """Remove an ended job and all that it wrote; JOB is an id, or a name (its newest job).

    The jobs of a pipeline or a sweep go with it, and the evaluations of a training's checkpoints,
    which are cancelled first where they live.
    A job is kept while another job, also one that a pipeline will create, or a registered model
    refers to it. Its MLflow run and its data set stay.
    """
    around = surroundings(output.say, Start.AGAIN)
    store = around.store
    job_id, *members = find_deletable(store, job, force=force)
    named = f"{job_id} and its {counted(len(members), 'job')}" if members else job_id
    if not yes and sys.stdin.isatty() and not click.confirm(f"delete {named}?", err=True):
        raise BadInputError(f"{job_id} was not deleted")
    if live := [one for one in members if not job_status(store, one).state.has_ended]:
        ensure_running(around, output.say)
        end_evaluations(store, live)
    removed = delete_job(store, job_id, force=force)
    value = {"job_id": job_id, "jobs": members, **asdict(removed)}
    output.result(value, f"{named} deleted: {_text(removed)}")


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Remove nothing.")
@output_option
def gc_command(dry_run: bool, output: Output) -> None:
    """Remove data that no commit names, uploads older than a day, and marks without a job."""
    store = surroundings(output.say, Start.NEVER if dry_run else Start.AGAIN).store
    garbage = collect_garbage(store, dry_run=dry_run)
    output.result({"dry_run": dry_run, **asdict(garbage)}, _describe(garbage, dry_run))


def _describe(garbage: Garbage, dry_run: bool) -> str:
    lines = [
        f"data without a commit  {_text(garbage.data)}",
        f"unfinished uploads     {_text(garbage.uploads)}",
        f"marks without a job    {_text(garbage.marks)}",
        f"half-deleted jobs      {_text(garbage.jobs)}",
        f"half-made data sets    {_text(garbage.datasets)}",
    ]
    lines += [f"{job_id} left alone: {why}" for job_id, why in garbage.skipped.items()]
    return "\n".join(lines + (["nothing was removed (--dry-run)"] if dry_run else []))


def _text(removed: Removed) -> str:
    return f"{counted(removed.objects, 'object')}, {bytes_text(removed.size_bytes)}"
