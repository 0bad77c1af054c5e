"""The curves of trainings in a report: loss, bound, and what their checkpoints are worth."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from orchestrator.client.metrics import read_metrics, training_seconds
from orchestrator.client.report.plots import Band, Plot, Series
from orchestrator.client.short_names import short_names
from orchestrator.errors import JobNotFoundError, ObjectNotFoundError
from orchestrator.jobs.curve import CurvePoint, read_curve
from orchestrator.jobs.held_out_bound import HELD_OUT_BOUND
from orchestrator.jobs.records import RecordStore
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

_BINS = 20
_MOST_POINTS = 400
_MEASURES = ("kid", "precision", "recall", "coverage")


def training_plots(store: ObjectStore, job_ids: Iterable[str]) -> Iterator[Plot]:
    """Yield what trainings left: losses, terms of their bounds, the worth of their checkpoints.

    A training that is gone has no curves, and takes nobody else's away.
    """
    ids = [job_id for job_id in job_ids if _is_there(store, job_id)]
    names = short_names(ids)
    for plot in _plots(store, ids):
        yield replace(plot, series=[replace(s, name=names[s.name]) for s in plot.series])


def _plots(store: ObjectStore, ids: list[str]) -> Iterator[Plot]:
    """Yield the plots; their lines are called by the trainings' ids."""
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
    yield from _checkpoint_plots(store, ids)


def _is_there(store: ObjectStore, job_id: str) -> bool:
    try:
        RecordStore(store).read(job_id)
    except (JobNotFoundError, ObjectNotFoundError):
        return False
    return True


def _checkpoint_plots(store: ObjectStore, job_ids: Iterable[str]) -> Iterator[Plot]:
    """Yield what checkpoints that were evaluated on the way are worth, by step and by time."""
    curves = {job_id: points for job_id in job_ids if (points := read_curve(store, job_id))}
    seconds = {job_id: training_seconds(store, job_id) for job_id in curves}
    for measure in _MEASURES:
        with_it = {
            job_id: measured
            for job_id, points in curves.items()
            if (measured := [p for p in points if p.name_of(measure)])
        }
        if not with_it:
            continue
        steps = {job_id: [float(p.step) for p in measured] for job_id, measured in with_it.items()}
        yield _worth("training steps", measure, with_it, steps)
        spent = {
            job_id: [float(s) for s in np.interp(at, list(known), list(known.values()))]
            for job_id, at in steps.items()
            if (known := seconds[job_id])
        }
        if spent:
            yield _worth("seconds of training", measure, with_it, spent)


def _worth(
    against: str,
    measure: str,
    curves: Mapping[str, list[CurvePoint]],
    places: Mapping[str, list[float]],
) -> Plot:
    """Return a plot of what checkpoints are worth; a line for each training that has places."""
    first = next(point for points in curves.values() for point in points)
    floor = first.floor_of(measure)
    return Plot(
        title=f"{measure} of checkpoints against {against}",
        x_label=against,
        y_label=measure,
        series=[
            Series(
                name=job_id,
                x=at,
                y=[value for p in curves[job_id] if (value := p.value_of(measure)) is not None],
                errors=[p.error_of(measure) for p in curves[job_id]],
            )
            for job_id, at in places.items()
        ],
        is_line=True,
        bands={} if floor is None else {"y": Band(middle=floor, spread=0.0)},
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
    key = JobPaths(job_id).attempt(record.attempt).held_out_bound
    bound = HELD_OUT_BOUND.value(store, key)
    # A VAE's chain has one step, so that no timesteps were drawn.
    if bound is None or not any(image.timesteps for image in bound.images):
        return None
    timesteps = np.concatenate([np.asarray(image.timesteps, float) for image in bound.images])
    terms = np.concatenate([np.asarray(image.terms, float) for image in bound.images])
    edges = np.geomspace(1.0, timesteps.max() + 2.0, _BINS + 1)
    bins = np.digitize(timesteps + 1.0, edges)
    kept = [number for number in range(1, _BINS + 1) if (bins == number).any()]
    return Series(
        name=job_id,
        x=[float((timesteps[bins == number] + 1.0).mean()) for number in kept],
        y=[float(terms[bins == number].mean()) for number in kept],
    )
