"""The plots of sample sets in a report: quality, coverage and speed, and what steps buy."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.client.evaluations import Evaluated, measures_of
from orchestrator.client.report.plots import Band, Plot, Series
from orchestrator.client.seeds import by_likeness, name_of, over_seeds


def sampler_of(row: Evaluated) -> str:
    """Return how a set was drawn, without the number of steps: "ddpm fixed_small"."""
    settings = row.settings
    if (family := settings.get("family", "ddpm")) != "ddpm":
        return str(family)
    method = str(settings.get("method", "?"))
    if method == "ddim":
        return f"ddim eta {settings.get('eta', 0):g}"
    spacing = str(settings.get("spacing", "linear"))
    words = (method, settings.get("variance"), "" if spacing == "linear" else spacing)
    return " ".join(str(word) for word in words if word)


def pair_plots(rows: Sequence[Evaluated]) -> Iterator[Plot]:
    """Yield a plot for each pair of quality, coverage and speed.

    Sets that differ in seeds alone have one colour, a point each.
    """
    measures = set(measures_of(rows))
    for x, y in (("coverage", "kid"), ("coverage", "precision")):
        if {x, y} <= measures:
            yield _pair(rows, x, y)
    timed = [row for row in rows if "mean_images_per_s" in row.speed]
    for y in ("kid", "coverage"):
        if timed and y in measures:
            yield _against_speed(timed, y)


def _values(rows: Iterable[Evaluated], measure: str) -> list[float]:
    metrics = (row.metric(measure) for row in rows)
    return [metric.value if metric else float("nan") for metric in metrics]


def _errors(rows: Iterable[Evaluated], measure: str) -> list[float]:
    metrics = (row.metric(measure) for row in rows)
    return [metric.spread if metric else 0.0 for metric in metrics]


def _band(rows: Iterable[Evaluated], measure: str) -> Band | None:
    for row in rows:
        metric = row.metric(measure)
        if metric is not None:
            return Band(middle=metric.floor, spread=metric.floor_spread)
    return None


def _bands(rows: Sequence[Evaluated], **measures: str) -> dict[str, Band]:
    bands = {axis: _band(rows, measure) for axis, measure in measures.items()}
    return {axis: band for axis, band in bands.items() if band is not None}


def _pair(rows: Sequence[Evaluated], x: str, y: str) -> Plot:
    return Plot(
        title=f"{y} against {x} of each set",
        x_label=x,
        y_label=y,
        series=[
            Series(name=name_of(alike), x=_values(alike, x), y=_values(alike, y))
            for alike in by_likeness(rows)
        ],
        bands=_bands(rows, x=x, y=y),
    )


def _against_speed(rows: Sequence[Evaluated], y: str) -> Plot:
    return Plot(
        title=f"{y} against images a second of each set",
        x_label="images a second",
        y_label=y,
        series=[
            Series(
                name=name_of(alike),
                x=[row.speed["mean_images_per_s"] for row in alike],
                y=_values(alike, y),
                errors=_errors(alike, y),
            )
            for alike in by_likeness(rows)
        ],
        log_x=True,
        bands=_bands(rows, y=y),
    )


def step_plots(rows: Sequence[Evaluated]) -> Iterator[Plot]:
    """Yield quality against sampling steps, a line for each sampler; nothing for one number.

    Sets that differ in seeds alone are one point, their mean with its deviation.
    """
    if len({row.settings.get("num_steps") for row in rows if row.settings}) < 2:
        return
    by_sampler: dict[str, list[Evaluated]] = defaultdict(list)
    for row in sorted(over_seeds(rows), key=lambda row: row.num_steps):
        if row.settings:
            by_sampler[sampler_of(row)].append(row)
    for measure in ("kid", "precision", "coverage"):
        if measure in set(measures_of(rows)):
            yield Plot(
                title=f"{measure} against reverse steps, by sampler",
                x_label="reverse steps",
                y_label=measure,
                series=[
                    Series(
                        name=name,
                        x=[float(row.num_steps) for row in sets],
                        y=_values(sets, measure),
                        errors=_errors(sets, measure),
                    )
                    for name, sets in by_sampler.items()
                ],
                log_x=True,
                is_line=True,
                bands=_bands(rows, y=measure),
            )
