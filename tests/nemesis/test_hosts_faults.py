"""The part of the nemesis on hosts that needs none: its plan, its strikes, who is in reach."""

import os
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import psutil
from ruamel.yaml import YAML

from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.cluster.process_search import ProcessRef
from tests.hosts.cluster import WORKERS
from tests.nemesis.hosts.faults import FAULTS
from tests.nemesis.hosts.home import BACK_FOR_S, Away, Hosts, found_of
from tests.nemesis.hosts.shapes import SHAPES, TEXTS
from tests.nemesis.plan import PlannedFault, planned_faults
from tests.nemesis.real.witness import Watch

WEIGHTS = {kind: weight for kind, (weight, _) in FAULTS.items()}


def test_the_seed_tells_the_order_of_faults_on_hosts() -> None:
    """A run that found something can be had again; each kind comes, sooner or later."""
    first, again, other = (
        list(islice(planned_faults(seed, WEIGHTS, 4.0), 1000)) for seed in (7, 7, 8)
    )
    assert first == again != other
    assert {planned.kind for planned in first} == FAULTS.keys()


def test_each_shape_has_a_job_file() -> None:
    """With as many workers as hosts may have."""
    asked = {
        name: YAML(typ="safe").load(text)["resources"]["num_workers"]
        for name, text in TEXTS.items()
    }
    assert asked == {"train": 1, "wide": 2, "fleet": {"min": 1, "max": 3}}
    assert [shape.name for shape in SHAPES] == [*asked]


class _Cuts:
    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []

    def cut(self, name: str, seconds: float) -> None:
        self.seen.append((name, seconds))


def test_each_host_is_cut_off_for_long_and_for_short() -> None:
    """Which host it is does not say for how long."""
    hosts, strike = _Cuts(), FAULTS["a worker's host cut off"][1]
    for number in range(300):
        planned = PlannedFault(number, "", 0.0, number / 300)
        assert strike(cast(Hosts, hosts), cast(Watch, None), planned)
    for name in WORKERS:
        lengths: list[Any] = [seconds for one, seconds in hosts.seen if one == name]
        assert 5 <= min(lengths) < 6
        assert 59 < max(lengths) <= 60


def test_who_was_cut_off_is_out_of_reach_for_a_while() -> None:
    """It hears only when it is back that it was given up."""
    away = Away()
    away.leaves("worker-1")
    assert away.names(1e9) == {"worker-1"}
    away.comes_back("worker-1", 1000.0)
    assert away.names(1000.0 + BACK_FOR_S / 2) == {"worker-1"}
    assert away.names(1000.0 + BACK_FOR_S) == set()


def test_a_process_is_found_by_its_namespace_its_pid_there_and_its_age() -> None:
    """A pid alone is that of another process on each host."""
    own = ProcessIdentity.of(psutil.Process())
    ref = ProcessRef("driver", os.getpid(), own.born_s, own.boot_id, "", "")
    others = (replace(ref, born_s=ref.born_s - 1), replace(ref, boot_id="boot pid:[1]"))
    found, *missing = found_of([ref, *others])
    assert found is not None
    assert found.pid == os.getpid()
    assert missing == [None, None]
