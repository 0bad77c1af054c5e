"""The nemesis itself: its plan is the seed's, its lives are whole, and it sees what is wrong."""

import json
from itertools import islice

import pytest

from orchestrator.cluster.process_search import Sighting
from orchestrator.controller import answering
from tests.nemesis.__main__ import against_doubles
from tests.nemesis.doubles.cluster import SimulatedCluster
from tests.nemesis.doubles.faults import FAULTS
from tests.nemesis.doubles.lives import Tally, live
from tests.nemesis.plan import planned_faults
from tests.nemesis.report import spread, table

WEIGHTS = {kind: weight for kind, (weight, _) in FAULTS.items()}


def test_the_seed_tells_the_order_of_faults() -> None:
    """A run that found something can be had again; another seed is another run."""
    first, again, other = (
        list(islice(planned_faults(seed, WEIGHTS, 5.0), 2000)) for seed in (7, 7, 8)
    )
    assert first == again != other
    assert {planned.kind for planned in first} == FAULTS.keys()


def test_a_life_with_faults_ends_as_asked() -> None:
    """Some twenty kinds of faults against the real loop, with time, Ray and processes simulated."""
    tally = Tally()
    live(100, 40, tally)
    assert tally.faults.total() == 40
    assert tally.jobs > 10
    assert tally.violations == {}


def test_a_life_is_the_same_for_the_same_seed() -> None:
    """What a seed found is found again, or it could not be mended."""
    lives = [live(5, 12, Tally()) for _ in range(2)]
    keys = [list(world.store.objects) for world in lives]
    assert keys[0] == keys[1]


def test_a_loop_that_moves_on_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that never speaks proves nothing: this loop takes every process for gone."""
    gone = Sighting(running=[])
    monkeypatch.setattr(SimulatedCluster, "alive", lambda *_: gone)
    tally = Tally()
    live(3, 25, tally)
    assert any("lives" in line or "at once" in line for line in tally.violations[3])


def test_a_loop_that_forgets_requests_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted jobs stay listed, cancels are never heard."""
    monkeypatch.setattr(answering, "read_requests", lambda _: [])
    tally = Tally()
    live(3, 25, tally)
    assert any("inbox" in line for line in tally.violations[3])


def test_what_a_run_came_to_is_written_for_machines() -> None:
    """Kinds of faults with their counts; it is written at the end, when the run is paid for."""
    told = json.loads(json.dumps(against_doubles(8, 3)))
    assert sum(told["faults"].values()) == 8
    assert set(told["faults"]) <= FAULTS.keys()
    assert told["untrue_s"]["count"] >= 0


def test_the_report_names_the_worst() -> None:
    """Median and worst, and the sum of all faults."""
    assert spread([1.0, 2.0, 9.0]) == {"count": 3, "median_s": 2.0, "worst_s": 9.0}
    assert table({"killed": 2, "stopped": 5}).split() == [
        *("5", "stopped", "2", "killed", "7", "in", "all")
    ]
