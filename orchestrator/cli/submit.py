"""The verb `submit`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from orchestrator.cli.hints import next_step
from orchestrator.cli.jobs import watch, with_page
from orchestrator.cli.logs import follow_logs
from orchestrator.cli.output import Output, exit_code_of, output_option
from orchestrator.cli.progress import on_interrupt
from orchestrator.cli.reading_bar import ReadingBar
from orchestrator.cli.terminal import job_text
from orchestrator.client.describe import describe_plan
from orchestrator.client.ensure import ensure_running
from orchestrator.client.outlook import outlook_of
from orchestrator.client.owner import user_name
from orchestrator.client.plan import plan_of_file
from orchestrator.client.prepare import check_sources, prepared
from orchestrator.client.status import job_status
from orchestrator.client.submit import Submission, submit_job, submit_with_smoke
from orchestrator.client.surroundings import Start, Surroundings, surroundings
from orchestrator.specs.files import JobFile, load_job_file
from orchestrator.specs.job import Job
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True)
class _How:
    """How files are submitted.

    Attributes:
        overrides: `a.b=value` each.
        job_id: The id; None to make one.
        dry_run: Only the plan is wanted.
        smoke: A smoke test goes before.
        several: More than one file was given, so that results are a list.
    """

    overrides: tuple[str, ...]
    job_id: str | None
    dry_run: bool
    smoke: bool
    several: bool


@click.command("submit")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field.")
@click.option("--id", "job_id", help="Submitting the same id and spec twice is submitting once.")
@click.option("--dry-run", is_flag=True, help="Print the plan and submit nothing.")
@click.option("--smoke", is_flag=True, help="First a one-worker job that looks whether it works.")
@click.option("--wait", "stay", is_flag=True, help="Wait for the end; see `wait`.")
@click.option("--follow", "with_logs", is_flag=True, help="Wait, and show what it writes.")
@output_option
def submit_command(
    files: tuple[Path, ...],
    overrides: tuple[str, ...],
    job_id: str | None,
    dry_run: bool,
    smoke: bool,
    stay: bool,
    with_logs: bool,
    output: Output,
) -> None:
    r"""Check job files and put the jobs, pipelines or sweeps into the queue; `-` is standard input.

    All files are checked before the first is queued.

    \b
    Examples:
      ddpmctl submit jobs/train.yaml --dry-run
      ddpmctl submit jobs/train.yaml jobs/sample.yaml --set priority=60
      ddpmctl submit job.yaml --id nightly-7 --follow
      sed s/digits/letters/ job.yaml | ddpmctl submit -
    """
    if job_id and len(files) > 1:
        raise click.UsageError("--id names one job; submit the files one by one")
    how = _How(overrides, job_id, dry_run, smoke, len(files) > 1)
    job_files = [load_job_file(file, overrides, os.environ) for file in files]
    for file, job_file in zip(files, job_files, strict=True):
        check_sources(job_file, file.parent)
    start = Start.NEVER if dry_run else Start.FRESH
    around = surroundings(output.say, start, writes=True)  # a dry run reads the images in, too
    store = around.store
    ready = _ready(store, files, job_files, output)
    if dry_run:
        plans = [plan_of_file(file, store) for file in ready]
        values = [plan.as_json() for plan in plans]
        text = "\n\n".join(map(describe_plan, plans))
        output.result(values if how.several else values[0], text)
        return
    submissions = _submit_all(around, ready, how, output)
    if stay or with_logs:
        sys.exit(_wait_for_all(around, submissions, with_logs, output))
    _tell(around, ready, submissions, how, output)


def _tell(
    around: Surroundings,
    ready: Sequence[JobFile],
    submissions: Sequence[Submission],
    how: _How,
    output: Output,
) -> None:
    """Say what was queued, and what it waits for where the nodes that are there won't do."""
    store = around.store
    lines = [
        f"{one.job_id} {'queued' if one.is_new else 'exists already, with the same spec'}"
        for one in submissions
    ]
    # The status costs seven requests, which the text does not need.
    statuses = [job_status(store, one.job_id) for one in submissions] if output.as_json else [None]
    outlook = [line for job_file in ready for line in outlook_of(store, job_file.spec)]
    if output.as_json:
        for line in outlook:
            output.say(line)
    lines += [f"  {line}" for line in outlook]
    page = around.mlflow_page()
    lines += [f"  follow it: ddpmctl wait {submissions[-1].job_id}"]
    lines += [f"  its run:   {page}"] if page else []
    text = "\n".join(lines)
    output.result(statuses if how.several else statuses[0], text)


def _ready(
    store: ObjectStore, files: Sequence[Path], job_files: Sequence[JobFile], output: Output
) -> list[JobFile]:
    """Return the files ready to be queued; a later one may draw from what an earlier one trains."""
    ready, coming = [], dict[str, Job]()
    for file, job_file in zip(files, job_files, strict=True):
        with ReadingBar(silent=output.as_json) as bar:
            done = prepared(job_file, file.parent, store, bar.say, coming, bar.show)
        ready.append(done)
        coming |= {job.name: job for _, job in job_file.jobs()}
    for warning in (warning for job_file in ready for warning in job_file.warnings):
        output.say(f"warning: {warning}")
    return ready


def _submit_all(
    around: Surroundings, ready: Sequence[JobFile], how: _How, output: Output
) -> list[Submission]:
    store = around.store
    put = submit_with_smoke if how.smoke else submit_job
    user = user_name()
    submissions = [put(store, f.spec, how.job_id, replace(f.asked, user=user)) for f in ready]
    queued = ", ".join(one.job_id for one in submissions)
    with on_interrupt(output, f"queued: {queued}"):
        ensure_running(around, output.say)
    return submissions


def _wait_for_all(
    around: Surroundings, submissions: Sequence[Submission], with_logs: bool, output: Output
) -> int:
    """Wait for each job in turn; return the exit code of the first that did not succeed."""
    codes = []
    for one in submissions:
        last = (follow_logs if with_logs else watch)(output, around.store, one.job_id)
        last = with_page(last, around)
        output.result(last, job_text(last))
        output.hint(next_step(last))
        codes.append(exit_code_of(last.state))
    return next((code for code in codes if code), 0)
