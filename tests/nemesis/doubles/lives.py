"""Many simulated lives, one after the other, until so many faults have struck."""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.nemesis.doubles.faults import FAULTS
from tests.nemesis.doubles.witness import at_the_end
from tests.nemesis.doubles.world import World, simulated
from tests.nemesis.plan import planned_faults

FAULTS_A_LIFE = 100
EVERY_S = 4.0


@dataclass
class Tally:
    """What came of some lives.

    Attributes:
        faults: Faults that struck, by kind.
        jobs: Jobs that were asked for.
        attempts: Attempts of them.
        verbs: Verbs of users.
        violations: What should never have been, by the seed of its life.
        untrue_s: How long wrong words stood.
        redone: Units that were done again.
        simulated_s: Seconds that passed in the lives.
        took_s: Seconds that passed here.
    """

    faults: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    attempts: int = 0
    verbs: int = 0
    violations: dict[int, list[str]] = field(default_factory=dict)
    untrue_s: list[float] = field(default_factory=list)
    redone: int = 0
    simulated_s: float = 0.0
    took_s: float = 0.0


def live(seed: int, num_faults: int, tally: Tally, *, kinds: frozenset[str] = frozenset()) -> World:
    """Live one life and add what came of it.

    Args:
        seed: Of the life and of its faults.
        num_faults: Faults that strike.
        tally: Where it is added.
        kinds: Faults to leave out.
    """
    logging.disable(logging.CRITICAL)
    began_at = time.monotonic()
    weights = {kind: weight for kind, (weight, _) in FAULTS.items() if kind not in kinds}
    plan = planned_faults(seed, weights, EVERY_S)
    world, struck = World(seed), 0
    began = world.store.clock
    with simulated(world):
        while struck < num_faults:
            planned = next(plan)
            for _ in range(round(planned.after_s)):
                world.tick()
            if FAULTS[planned.kind][1](world, planned):
                struck += 1
                tally.faults[planned.kind] += 1
        world.calm_down()
        at_the_end(world.witness, world.store, world.users.wishes, world.server)
    _add(tally, seed, world)
    tally.simulated_s += (world.store.clock - began).total_seconds()
    tally.took_s += time.monotonic() - began_at
    logging.disable(logging.NOTSET)
    return world


def _add(tally: Tally, seed: int, world: World) -> None:
    tally.jobs += sum(1 + len(wish.children) for wish in world.users.wishes.values())
    tally.attempts += len({(p.job_id, p.attempt) for p in world.cluster.processes.values()})
    tally.verbs += world.users.num_verbs
    tally.untrue_s += world.witness.untrue_s
    tally.redone += world.redone
    if world.witness.violations:
        tally.violations[seed] = world.witness.violations
