"""Which fault comes when: a pure function of the seed."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedFault:
    """A fault that is to strike.

    Attributes:
        number: Its place in the plan, from 1.
        kind: What happens.
        after_s: Seconds since the one before.
        draw: In [0, 1): by this the fault chooses its victim, and how long it lasts.
    """

    number: int
    kind: str
    after_s: float
    draw: float

    def chosen(self, victims: list[str]) -> str:
        """Return one of several, which are put in order first; "" of none."""
        return sorted(victims)[int(self.draw * len(victims))] if victims else ""

    def between(self, least: float, most: float) -> float:
        """Return a number between two others."""
        return least + self.draw * (most - least)


def planned_faults(
    seed: int, weights: Mapping[str, float], every_s: float
) -> Iterator[PlannedFault]:
    """Yield faults without end, the same ones for the same seed.

    Args:
        seed: Of the plan.
        weights: How often each kind comes, beside the others.
        every_s: Mean of the seconds between two of them, which are exponentially distributed.
    """
    chance, kinds, number = random.Random(seed), sorted(weights), 0
    while True:
        number += 1
        kind = chance.choices(kinds, [weights[kind] for kind in kinds])[0]
        yield PlannedFault(number, kind, chance.expovariate(1 / every_s), chance.random())
