"""The verbs about sample sets: `samples verify|repair|export|grid|statistics`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click

from orchestrator.artifacts.images import image_grid
from orchestrator.artifacts.samples.export import ExportFormat, export_samples
from orchestrator.artifacts.samples.verify import (
    SampleSet,
    SetReport,
    repair_samples,
    verify_samples,
)
from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.groups import VerbGroup
from orchestrator.cli.jobs import watch
from orchestrator.cli.output import Output, output_option, short_output_option
from orchestrator.cli.targets import TargetPath
from orchestrator.client.asking import ask_and_wait
from orchestrator.client.surroundings import Start, surroundings
from orchestrator.counts import counted
from orchestrator.errors import BadInputError, ObjectNotFoundError
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.store.keys import JobPaths

_WITHOUT_END = (JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.STOPPING)


@click.group("samples", cls=VerbGroup)
def samples_command() -> None:
    """Prove, mend and export a set of samples."""


@samples_command.command("verify")
@click.argument("job", cls=JobArgument)
@output_option
def verify_command(job: str, output: Output) -> None:
    """Reread a set and prove that it has exactly N images, in order and undamaged."""
    store = surroundings(output.say).store
    report = verify_samples(store, find_job_id(store, job))
    output.result(asdict(report), _describe(report))
    sys.exit(0 if report.is_whole else 1)


@samples_command.command("repair")
@click.argument("job", cls=JobArgument)
@output_option
def repair_command(job: str, output: Output) -> None:
    """Draw again what is missing or damaged, and nothing else; then prove the set."""
    around = surroundings(output.say, Start.AGAIN)
    store = around.store
    job_id = find_job_id(store, job)
    state = RecordStore(store).read(job_id).record.state
    if state in _WITHOUT_END:
        raise BadInputError(f"job {job_id} is {state}; a set is repaired once its job has ended")
    report = repair_samples(store, job_id)
    if not report.is_whole:
        output.say(_describe(report))
        ask_and_wait(around, job_id, Verb.REPAIR, output.say)
        watch(output, store, job_id)
        report = verify_samples(store, job_id)
    output.result(asdict(report), _describe(report))
    sys.exit(0 if report.is_whole else 1)


@samples_command.command("export")
@click.argument("job", cls=JobArgument)
@click.option(
    "--format",
    "export_format",
    type=click.Choice(get_args(ExportFormat)),
    default="npz",
    show_default=True,
    help="npz: arr_0, uint8 (N, H, W, C), the form that FID tools take, and labels as arr_1; "
    "png-by-class: a folder for each class.",
)
@click.option("--output", "--to", "path", type=TargetPath(None), required=True)
@click.option("--overwrite", is_flag=True, help="Replace what stands at the path.")
@short_output_option
def export_command(
    job: str, export_format: Any, path: Path, overwrite: bool, output: Output
) -> None:
    """Write a set to local files; memory does not grow with it."""
    store = surroundings(output.say).store
    num_images = export_samples(
        store, find_job_id(store, job), export_format, path, overwrite=overwrite
    )
    value = {"path": str(path), "format": export_format, "num_images": num_images}
    output.result(value, f"{counted(num_images, 'image')} in {path}")


@samples_command.command("statistics")
@click.argument("job", cls=JobArgument)
@click.option("--output", "--to", "path", type=click.Path(path_type=Path), required=True)
@short_output_option
def statistics_command(job: str, path: Path, output: Output) -> None:
    """Write mean and covariance of an evaluation's real images, as FID tools read them."""
    store = surroundings(output.say).store
    job_id = find_job_id(store, job)
    try:
        body = store.get(JobPaths(job_id).reference_statistics).body
    except ObjectNotFoundError as error:
        raise BadInputError(
            f"{job_id} has no statistics: it is no evaluation that has ended, or has no more real "
            "images than features, or more than 2,048 features"
        ) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror}") from error
    value = {"path": str(path.absolute()), "size_bytes": len(body)}
    output.result(value, f"mu and sigma of the real images: {path.absolute()}")


@samples_command.command("grid")
@click.argument("job", cls=JobArgument)
@click.option("--output", "--to", "path", type=TargetPath(), required=True)
@click.option("--num-images", type=click.IntRange(1, 4096), default=64, show_default=True)
@short_output_option
def grid_command(job: str, path: Path, num_images: int, output: Output) -> None:
    """Write the first images of a set side by side into one PNG."""
    store = surroundings(output.say).store
    samples = SampleSet(store, find_job_id(store, job))
    shown = samples.first_images(num_images)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_grid(shown))
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror}") from error
    value = {"path": str(path.absolute()), "num_images": len(shown)}
    output.result(value, f"the first {counted(len(shown), 'image')}: {path.absolute()}")


def _describe(report: SetReport) -> str:
    if report.is_whole:
        return (
            f"{report.job_id}: whole, {counted(report.num_images, 'image')} in "
            f"{counted(report.num_shards, 'shard')}\n"
            f"  SHA-256 of the pixels in order: {report.set_sha256}"
        )
    good = f"{report.num_images} of {counted(report.num_samples, 'image')}"
    lines = [f"{report.job_id}: {good} {'is' if report.num_images == 1 else 'are'} good"]
    return "\n".join([*lines, *(f"  {problem}" for problem in report.problems)])
