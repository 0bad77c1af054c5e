"""The corners of the generative trilemma (Xiao et al. 2021): which family loses which of them.

Each family is taken at its best, its set with the most evaluations an image; whether a slow family
could draw faster at the price of another corner, the rows of its other sets tell.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.client.evaluations import Evaluated

_CORNERS = (("quality", "kid"), ("coverage", "recall"), ("speed", "images/s"))


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a family gets in a corner.

    Attributes:
        family: "ddpm", "vae" or "gan".
        value: A mean over the sets.
        spread: Their standard deviation, of a lone set its standard error; 0 of a speed.
        num_sets: Sets.
    """

    family: str
    value: float
    spread: float = 0.0
    num_sets: int = 1


@dataclass(frozen=True, kw_only=True)
class Corner:
    """A corner.

    Attributes:
        name: "quality", "coverage" or "speed".
        measure: What it is measured by.
        places: The families, the best first.
        is_told_apart: Whether the last is further from the last but one than their errors.
    """

    name: str
    measure: str
    places: tuple[Place, ...]
    is_told_apart: bool


def corners_of(rows: Iterable[Evaluated]) -> list[Corner]:
    """Return the corners in which some sets' families can be compared; none of one family alone."""
    best: dict[str, Evaluated] = {}
    for row in rows:
        family = row.family
        if family and (family not in best or row.num_steps > best[family].num_steps):
            best[family] = row
    corners = (_corner(name, measure, best.values()) for name, measure in _CORNERS)
    return [corner for corner in corners if len(corner.places) > 1]


def _corner(name: str, measure: str, rows: Iterable[Evaluated]) -> Corner:
    sign = 1.0 if measure == "kid" else -1.0
    unordered = [place for row in rows if (place := _place(measure, row)) is not None]
    places = sorted(unordered, key=lambda place: sign * place.value)
    return Corner(
        name=name, measure=measure, places=tuple(places), is_told_apart=_are_apart(places[-2:])
    )


def _place(measure: str, row: Evaluated) -> Place | None:
    family = row.family
    if measure == "images/s":
        rate = row.speed.get("mean_images_per_s")
        return None if rate is None else Place(family=family, value=rate, num_sets=row.num_sets)
    metric = row.metric(measure)
    if metric is None:
        return None
    return Place(family=family, value=metric.value, spread=metric.spread, num_sets=row.num_sets)


def _are_apart(last: Sequence[Place]) -> bool:
    if len(last) < 2:
        return False
    one, other = last
    doubt = 2.0 * math.hypot(*(p.spread / math.sqrt(p.num_sets) for p in last))
    return abs(one.value - other.value) > doubt


def corner_text(corner: Corner) -> str:
    """Return "quality (kid): lost by vae: ddpm 0.0001 ±0.0010, ..., vae 0.0049 ±0.0004"."""
    digits = 1 if corner.measure == "images/s" else 4
    lines = [
        f"{p.family} {p.value:.{digits}f}" + (f" ±{p.spread:.{digits}f}" if p.spread else "")
        for p in corner.places
    ]
    last = corner.places[-1].family
    verdict = f"lost by {last}" if corner.is_told_apart else "the last two cannot be distinguished"
    return f"{corner.name} ({corner.measure}): {verdict}: {', '.join(lines)}"


def training_text(rows: Iterable[Evaluated]) -> str:
    """Return how long each family's trainings took, as "trained for: ddpm 301 s, vae 312 s"."""
    seconds: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.training_s is not None:
            family = seconds.setdefault(row.family, {})
            family[row.training] = row.training_s
    lines = [f"{name} {sum(s.values()) / len(s):.0f} s" for name, s in seconds.items()]
    return f"trained for: {', '.join(lines)}"
