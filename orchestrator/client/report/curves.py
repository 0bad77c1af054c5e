"""The curves of a report: quality against cost for sets, loss and bound for trainings."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from orchestrator.client.evaluations import Evaluated, measures_of
from orchestrator.client.metrics import read_metrics
from orchestrator.client.report.plots import Band, Plot, Series
from orchestrator.jobs.records import RecordStore
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

_BINS = 20
_MOST_POINTS = 400


def sampler_of(row: Evaluated) -> str:
    """Return how a set was drawn, without the number of steps: "ddpm fixed_small"."""
    settings = row.settings
    if (family := settings.get("family", "ddpm")) != "ddpm":
        return str(family)
    method = str(settings.get("method", "?"))
    if method == "ddim":
        return f"ddim eta {settings.get('eta', 0):g}"
    return f"{method} {settings.get('variance') or 'variance left out'}"


def pair_plots(rows: Sequence[Evaluated]) -> Iterator[Plot]:
    """Yield a plot for each pair of quality, coverage and speed."""
    measures = set(measures_of(rows))
    for x, y in (("coverage", "kid"), ("coverage", "precision")):
        if {x, y} <= measures:
            yield _pair(rows, x, y)
    timed = [row for row in rows if "mean_images_per_s" in row.speed]
    for y in ("kid", "coverage"):
        if timed and y in measures:
            yield _against_speed(timed, y)


def _values(rows: Iterable[Evaluated], measure: str) -> list[float]:
    found = (row.metric(measure) for row in rows)
    return [metric.value if metric else float("nan") for metric in found]


def _errors(rows: Iterable[Evaluated], measure: str) -> list[float]:
    found = (row.metric(measure) for row in rows)
    return [metric.spread if metric else 0.0 for metric in found]


def _band(rows: Iterable[Evaluated], measure: str) -> Band | None:
    for row in rows:
        metric = row.metric(measure)
        if metric is not None:
            return Band(middle=metric.floor, spread=metric.floor_spread)
    return None


def _bands(rows: Sequence[Evaluated], **measures: str) -> dict[str, Band]:
    found = {axis: _band(rows, measure) for axis, measure in measures.items()}
    return {axis: band for axis, band in found.items() if band is not None}


def _pair(rows: Sequence[Evaluated], x: str, y: str) -> Plot:
    return Plot(
        title=f"{y} against {x} of each set",
        x_label=x,
        y_label=y,
        series=[Series(name=row.samples, x=_values([row], x), y=_values([row], y)) for row in rows],
        bands=_bands(rows, x=x, y=y),
    )


def _against_speed(rows: Sequence[Evaluated], y: str) -> Plot:
    return Plot(
        title=f"{y} against images a second of each set",
        x_label="images a second",
        y_label=y,
        series=[
            Series(
                name=row.samples,
                x=[row.speed["mean_images_per_s"]],
                y=_values([row], y),
                errors=_errors([row], y),
            )
            for row in rows
        ],
        log_x=True,
        bands=_bands(rows, y=y),
    )


def step_plots(rows: Sequence[Evaluated]) -> Iterator[Plot]:
    """Yield quality against sampling steps, a line for each sampler; nothing for one number."""
    if len({row.settings.get("num_steps") for row in rows if row.settings}) < 2:
        return
    by_sampler: dict[str, list[Evaluated]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row.settings.get("num_steps", 0))):
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
                        x=[float(row.settings["num_steps"]) for row in found],
                        y=_values(found, measure),
                        errors=_errors(found, measure),
                    )
                    for name, found in by_sampler.items()
                ],
                log_x=True,
                is_line=True,
                bands=_bands(rows, y=measure),
            )


def training_plots(store: ObjectStore, job_ids: Iterable[str]) -> Iterator[Plot]:
    """Yield the losses of trainings, and the terms of their bounds over t."""
    ids = list(job_ids)
    losses = [series for job_id in ids if (series := _loss(store, job_id)) is not None]
    if losses:
        yield Plot(
            title="training loss by step",
            x_label="step",
            y_label="loss",
            series=losses,
            is_line=True,
        )
    terms = [series for job_id in ids if (series := _terms(store, job_id)) is not None]
    if terms:
        yield Plot(
            title="terms of the bound on held-out images, by timestep",
            x_label="t + 1",
            y_label="bits a dimension",
            series=terms,
            is_line=True,
            log_x=True,
        )


def _loss(store: ObjectStore, job_id: str) -> Series | None:
    points = read_metrics(store, job_id, {"loss"}).get("loss", {})
    if len(points) < 2:
        return None
    steps = list(points)
    kept = steps[:: -(-len(steps) // _MOST_POINTS)]
    return Series(name=job_id, x=[float(s) for s in kept], y=[points[s] for s in kept])


def _terms(store: ObjectStore, job_id: str) -> Series | None:
    """Return the mean term of each bin of timesteps; L_0 stands at 1."""
    record = RecordStore(store).read(job_id).record
    key = f"{JobPaths(job_id).attempt(record.attempt).folder}evaluation.json"
    if not store.exists(key):
        return None
    rows = json.loads(store.get(key).body).get("images", [])
    if not any(row["timesteps"] for row in rows):  # as of a VAE, whose chain has one step
        return None
    timesteps = np.concatenate([np.asarray(row["timesteps"], float) for row in rows])
    terms = np.concatenate([np.asarray(row["terms"], float) for row in rows])
    edges = np.geomspace(1.0, timesteps.max() + 2.0, _BINS + 1)
    bins = np.digitize(timesteps + 1.0, edges)
    kept = [number for number in range(1, _BINS + 1) if (bins == number).any()]
    return Series(
        name=job_id,
        x=[float((timesteps[bins == number] + 1.0).mean()) for number in kept],
        y=[float(terms[bins == number].mean()) for number in kept],
    )
