"""Evaluations of sets that differ in their seeds alone, as one: means and deviations over seeds."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.client.evaluations import Evaluated, Measured


def over_seeds(rows: Iterable[Evaluated]) -> list[Evaluated]:
    """Return one row for all sets that differ in seeds alone, in the order of the first of each.

    Its values are means over the sets, and their `spread` is the standard deviation between sets:
    what another seed would change. A set that stands alone stays as it is.

    Args:
        rows: Of any sets; the trainings of sets that are put together were asked the same, too.
    """
    return [mean_of(members) for members in by_likeness(rows)]


def by_likeness(rows: Iterable[Evaluated]) -> list[list[Evaluated]]:
    """Return the sets that differ in seeds alone together, in the order of the first of each."""
    groups: dict[str, list[Evaluated]] = {}
    for row in rows:
        groups.setdefault(_likeness(row), []).append(row)
    return list(groups.values())


def _likeness(row: Evaluated) -> str:
    """Return what sets must have in common; a set whose training is gone is like no other."""
    settings = {name: value for name, value in row.settings.items() if name != "seed"}
    alone = "" if row.recipe else row.samples
    return json.dumps(
        [settings, row.recipe, row.step, row.reference, row.extractor, alone],
        sort_keys=True,
        default=str,
    )


def name_of(rows: Sequence[Evaluated]) -> str:
    """Return what sets that differ in seeds alone are called together: "a and 2 more"."""
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{rows[0].samples}{more}"


def mean_of(rows: Sequence[Evaluated]) -> Evaluated:
    """Return sets that differ in seeds alone as one row; one alone as it is."""
    first = rows[0]
    if len(rows) == 1:
        return first
    names = [name for name in first.metrics if all(name in row.metrics for row in rows)]
    return replace(
        first,
        samples=name_of(rows),
        num_sets=len(rows),
        settings={key: value for key, value in first.settings.items() if key != "seed"},
        cost=None,
        training_s=_mean([row.training_s for row in rows]),
        metrics={name: _metric([row.metrics[name] for row in rows]) for name in names},
        memorisation=_means([row.memorisation for row in rows]),
        speed=_means([row.speed for row in rows]),
        classes=_means([row.classes for row in rows]),
    )


def _metric(scores: Sequence[Measured]) -> Measured:
    first = scores[0]
    value = float(np.mean([one.value for one in scores]))
    deviation = float(np.std([one.value for one in scores], ddof=1))
    floor = float(np.mean([one.floor for one in scores]))
    floor_spread = float(np.mean([one.floor_spread for one in scores]))
    doubt = 2.0 * math.hypot(deviation / math.sqrt(len(scores)), floor_spread)
    is_near = value <= floor + doubt if first.lower_is_better else value >= floor - doubt
    return replace(
        first,
        value=value,
        spread=deviation,
        floor=floor,
        floor_spread=floor_spread,
        is_at_floor=is_near,
    )


def _means(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each number that all have."""
    names = [name for name in numbers[0] if all(name in one for one in numbers)]
    return {name: float(np.mean([one[name] for one in numbers])) for name in names}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
