"""`ddpmctl compare`: evaluations side by side."""

import dataclasses
from collections.abc import Mapping, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.output import Output, output_option
from orchestrator.client.evaluations import (
    Evaluated,
    Measured,
    differing,
    measures_of,
    read_evaluations,
)
from orchestrator.client.surroundings import surroundings

AT_FLOOR = "*"


@click.command("compare")
@click.argument("jobs", nargs=-1, cls=JobArgument, required=True, metavar="JOB...")
@output_option
def compare_command(jobs: tuple[str, ...], output: Output) -> None:
    """Show evaluations side by side; JOB is an evaluation, or a group that has some."""
    rows = read_evaluations(surroundings(output.say).store, jobs)
    output.result([dataclasses.asdict(row) for row in rows], comparison_table(rows))


def comparison_table(rows: Sequence[Evaluated]) -> str:
    """Return what people read: a line a set, then what real images get."""
    measures = list(measures_of(rows))
    settings = differing(rows) or ["method", "num_steps"]
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("set", *settings):
        table.add_column(heading)
    for heading in (*measures, "rarest class", "authentic", "images/s"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [_number(row.metric(measure)) for measure in measures]
        told = [str(row.settings.get(key, "")) for key in settings]
        more = (_rarest(row.classes), _authentic(row), _speed(row))
        table.add_row(row.samples, *told, *cells, *more)
    for row in {(row.reference, row.extractor): row for row in rows}.values():
        floors = [_floor(row.metric(measure)) for measure in measures]
        blank = [""] * len(settings)
        rarest = _rarest(row.real_classes)
        table.add_row(f"real ({row.reference})", *blank, *floors, rarest, "", "")
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return f"{captured.get().rstrip()}\n{_legend(rows)}"


def _legend(rows: Sequence[Evaluated]) -> str:
    found = [metric for row in rows for metric in row.metrics.values()]
    extractors = sorted({row.extractor for row in rows})
    k = sorted({str(metric.k) for metric in found if metric.k is not None})
    n = sorted({metric.num_samples for metric in found})
    floors = sorted({metric.floor_images for metric in found})
    classifiers = sorted({row.classifier for row in rows if row.classifier})
    told = "".join(f"\nclasses: {classifier}" for classifier in classifiers)
    return (
        f"features: {', '.join(extractors)}; k = {', '.join(k)}; n = {_span(n)}; "
        f"real against real at n = {_span(floors)}; "
        f"± is a standard error; {AT_FLOOR}: cannot be told from real images{told}"
    )


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _number(metric: Measured | None) -> str:
    if metric is None:
        return ""
    mark = AT_FLOOR if metric.is_at_floor else ""
    return f"{metric.value:.4f} ±{metric.spread:.4f}{mark}"


def _floor(metric: Measured | None) -> str:
    return "" if metric is None else f"{metric.floor:.4f} ±{metric.floor_spread:.4f}"


def _authentic(row: Evaluated) -> str:
    share = row.memorisation.get("authentic_share")
    return "" if share is None else f"{share:.3f}"


def _rarest(shares: Mapping[str, float]) -> str:
    if not shares:
        return ""
    name = min(shares, key=lambda name: shares[name])
    return f"{shares[name]:.3f} ({name})"


def _speed(row: Evaluated) -> str:
    rate = row.speed.get("mean_images_per_s")
    return "" if rate is None else f"{rate:.1f}"
