"""`ddpmctl compare`: evaluations side by side."""

import dataclasses
from collections.abc import Mapping, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.output import Output, output_option
from orchestrator.client import seeds
from orchestrator.client.corners import corner_text, corners_of, training_text
from orchestrator.client.evaluations import Evaluated, Measured, differing, measures_of, setting
from orchestrator.client.results import read_evaluations
from orchestrator.client.short_names import by_short_names, called
from orchestrator.client.surroundings import surroundings

AT_FLOOR = "*"
_WIDTH = 400  # as wide as it comes: what is cut off cannot be compared


@click.command("compare")
@click.argument("jobs", nargs=-1, cls=JobArgument, required=True, metavar="JOB...")
@click.option(
    "--over-seeds", is_flag=True, help="Put sets that differ in seeds alone together, as means."
)
@output_option
def compare_command(jobs: tuple[str, ...], over_seeds: bool, output: Output) -> None:
    """Show evaluations side by side.

    JOB is an evaluation, a group that has some, or a training with evaluation.metrics. What has
    no result yet is named on standard error.
    """
    evaluations = read_evaluations(surroundings(output.say).store, jobs)
    together = seeds.over_seeds if over_seeds else list[Evaluated]
    if evaluations.missing:
        output.say(evaluations.missing_text)
    table = comparison_table(together(by_short_names(evaluations.rows)))
    names = called(evaluations.rows)
    output.result(
        [dataclasses.asdict(row) for row in together(evaluations.rows)],
        f"{table}\n{names}" if names else table,
    )


def comparison_table(rows: Sequence[Evaluated]) -> str:
    """Return what people read: a line a set, then what real images get; one set goes down."""
    table = _of_one(rows[0]) if len(rows) == 1 else _of_many(rows)
    console = Console(width=_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*(line for line in lines if line), *_legend(rows)])


def _of_one(row: Evaluated) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    for heading in (row.samples, f"real ({row.reference})"):
        table.add_column(heading, justify="right")
    for measure in measures_of([row]):
        metric = row.metric(measure)
        table.add_row(measure, _number(metric), _floor(metric))
    more = {
        "rarest class": (_rarest(row.classes), _rarest(row.real_classes)),
        "authentic": (_authentic(row), ""),
        "C_T": (_copying(row), ""),
        "images/s": (_speed(row), ""),
    }
    for name, (own, real) in more.items():
        if own:
            table.add_row(name, own, real)
    return table


def _of_many(rows: Sequence[Evaluated]) -> Table:
    measures = list(measures_of(rows))
    settings = differing(rows) or ["method", "num_steps"]
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("set", *settings):
        table.add_column(heading)
    for heading in (*measures, "rarest class", "authentic", "C_T", "images/s"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [_number(row.metric(measure)) for measure in measures]
        chosen = [setting(row, key) for key in settings]
        more = (_rarest(row.classes), _authentic(row), _copying(row), _speed(row))
        table.add_row(row.samples, *chosen, *cells, *more)
    for row in {(row.reference, row.extractor): row for row in rows}.values():
        floors = [_floor(row.metric(measure)) for measure in measures]
        blank = [""] * len(settings)
        rarest = _rarest(row.real_classes)
        table.add_row(f"real ({row.reference})", *blank, *floors, rarest, "", "", "")
    return table


def _legend(rows: Sequence[Evaluated]) -> list[str]:
    metrics = [metric for row in rows for metric in row.metrics.values()]
    extractors = sorted({row.extractor for row in rows})
    k = sorted({str(metric.k) for metric in metrics if metric.k is not None})
    n = sorted({metric.num_samples for metric in metrics})
    floors = sorted({metric.floor_images for metric in metrics})
    classifiers = sorted({row.classifier for row in rows if row.classifier})
    message = f"features: {', '.join(extractors)}; k = {', '.join(k)}; n = {_span(n)}"
    num_sets = sorted({row.num_sets for row in rows})
    error = "a standard error"
    if num_sets[-1] > 1:
        error = f"the standard deviation between {_span(num_sets)} sets of other seeds"
        error += ", of a set alone its standard error" if num_sets[0] == 1 else ""
    return [
        f"{message}; real against real at n = {_span(floors)}",
        f"± is {error}; {AT_FLOOR}: cannot be distinguished from real images",
        *(f"classes: {classifier}" for classifier in classifiers),
        *_corners(rows),
    ]


def _corners(rows: Sequence[Evaluated]) -> list[str]:
    """Return who loses which corner of the trilemma, where there are several families."""
    corners = corners_of(rows)
    if not corners:
        return []
    message = "the trilemma, each family by its set with the most steps"
    trained = training_text(rows)
    return [message, *(f"  {corner_text(corner)}" for corner in corners), f"  {trained}"]


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


def _copying(row: Evaluated) -> str:
    score = row.memorisation.get("copying_score")
    return "" if score is None else f"{score:.1f}"


def _rarest(shares: Mapping[str, float]) -> str:
    if not shares:
        return ""
    name = min(shares, key=lambda name: shares[name])
    return f"{shares[name]:.3f} ({name})"


def _speed(row: Evaluated) -> str:
    rate = row.speed.get("mean_images_per_s")
    return "" if rate is None else f"{rate:.1f}"
