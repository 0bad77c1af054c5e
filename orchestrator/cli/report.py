"""`ddpmctl report`: evaluations side by side as one HTML page."""

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.output import Output, short_output_option
from orchestrator.cli.targets import TargetPath
from orchestrator.client.report.page import report_page
from orchestrator.client.results import read_evaluations
from orchestrator.client.surroundings import surroundings
from orchestrator.errors import BadInputError


@click.command("report")
@click.argument("jobs", nargs=-1, cls=JobArgument, required=True, metavar="JOB...")
@click.option(
    "--output",
    "path",
    type=TargetPath(),
    default=Path("report.html"),
    show_default=True,
    help="The page.",
)
@short_output_option
def report_command(jobs: tuple[str, ...], path: Path, output: Output) -> None:
    """Write evaluations side by side as one page that needs nothing else.

    JOB is an evaluation, a group that has some, or a training with evaluation.metrics.
    """
    store = surroundings(output.say).store
    evaluations = read_evaluations(store, jobs)
    if evaluations.missing:
        output.say(evaluations.missing_text)
    text = report_page(store, evaluations.rows, datetime.now(UTC), evaluations.missing_text)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror}") from error
    output.result({"path": str(path), "size_bytes": len(text.encode())}, str(path))
