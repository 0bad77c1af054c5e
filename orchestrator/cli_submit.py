"""The verb `submit`."""

import sys
from pathlib import Path
from typing import Any

import click

from ddpm.config import ConfigError
from orchestrator.cli_jobs import wait_for
from orchestrator.cli_show import describe_plan
from orchestrator.datasets import describe
from orchestrator.ensure import ensure_orchestrator
from orchestrator.environment import surroundings
from orchestrator.errors import BadInputError
from orchestrator.job_dataset import with_dataset
from orchestrator.output import Output, exit_code_of, output_option
from orchestrator.plan import plan_sampling, plan_training
from orchestrator.spec import Job, TrainJob, load_spec
from orchestrator.storage import ObjectStore
from orchestrator.submit import job_status, submit_job, submit_with_smoke


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
    """Check a job file and put the job into the queue."""
    spec = load_spec(file, overrides)
    store = surroundings(output.say).store
    try:
        spec = with_dataset(spec, file.parent, store)
    except ConfigError as error:
        raise BadInputError(f"{file}: {error}") from error
    if dry_run:
        plan = _plan(spec, store)
        output.result(plan, describe_plan(plan))
        return
    submission = (submit_with_smoke if smoke else submit_job)(store, spec, job_id)
    ensure_orchestrator(store, output.say)
    if stay:
        sys.exit(exit_code_of(wait_for(output, store, submission.job_id, None)["state"]))
    told = "queued" if submission.is_new else "exists already, with the same spec"
    output.result(
        job_status(store, submission.job_id),
        f"{submission.job_id} {told}\n  follow it: ddpmctl wait {spec.name}",
    )


def _plan(spec: Job, store: ObjectStore) -> dict[str, Any]:
    if isinstance(spec, TrainJob):
        return plan_training(spec, describe(store, str(spec.dataset.sha256)))
    return plan_sampling(spec)
