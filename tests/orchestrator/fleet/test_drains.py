"""The workers of a fleet on a node that leaves save what they hold; the others go on."""

import time
from typing import Any

import pytest

from orchestrator.fleet import drains as drains_module
from orchestrator.fleet import free_room
from orchestrator.fleet.actor import Hello
from orchestrator.fleet.drains import Drains
from orchestrator.fleet.plan import PoolPlan
from orchestrator.fleet.pool import WorkerPool
from orchestrator.fleet.workers import PoolWorker
from orchestrator.jobs.decisions import Decisions
from tests.support.pool import Desk


def pool_on(*nodes: str, told: list[str]) -> WorkerPool:
    """Return a pool with a worker on each of its nodes."""
    pool = WorkerPool(Desk(), PoolPlan(nodes=nodes, max_workers=4, cpus=1.0, tell=told.append))
    for slot, node in enumerate(nodes):
        hello = Hello(proposal=Decisions(), node_id=node, pid=1)
        worker = PoolWorker(
            name=f"worker-{slot}", rank=slot, slot=slot, actor=slot, asked_at=0.0, hello=hello
        )
        pool.workers.append(worker)
    return pool


@pytest.mark.parametrize(("notice_s", "within_s"), [(25.0, 25.0), (None, 60.0), (900.0, 60.0)])
def test_workers_on_a_node_that_leaves_save_within_its_notice(
    monkeypatch: pytest.MonkeyPatch, notice_s: float | None, within_s: float
) -> None:
    """What they hold of an image, (x_t, t), goes to the next worker instead of being lost."""
    told: list[str] = []
    monkeypatch.setattr("orchestrator.fleet.pool.ray.kill", lambda actor: None)
    monkeypatch.setattr(drains_module, "draining_nodes", lambda: {"b": notice_s})
    monkeypatch.setattr(free_room, "free_resources", lambda: {"b": {"CPU": 9.0}})
    pool = pool_on("a", "b", told=told)
    monkeypatch.setattr(PoolWorker, "is_ready", True)
    now = time.monotonic()
    pool.shrink()
    stays, leaves = pool.workers
    assert stays.leave_by is None
    assert leaves.leave_by is not None
    assert now + within_s <= leaves.leave_by <= time.monotonic() + within_s
    pool.shrink()
    assert told == ["node b is being drained: 1 worker to save and leave"]


def test_none_is_started_again_on_a_node_that_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be ended as soon as it has compiled; only free room elsewhere takes its place."""
    started: list[tuple[int, str, bool]] = []

    def start(
        self: WorkerPool, slot: int, node: str, decisions: Any, *, is_extra: bool = False
    ) -> None:
        started.append((slot, node, is_extra))

    monkeypatch.setattr("orchestrator.fleet.pool.ray.kill", lambda actor: None)
    free: dict[str, dict[str, float]] = {"b": {"CPU": 9.0}}
    monkeypatch.setattr(WorkerPool, "_start", start)
    monkeypatch.setattr(drains_module, "draining_nodes", lambda: {"b": None})
    monkeypatch.setattr(free_room, "free_resources", lambda: dict(free))
    monkeypatch.setattr(free_room, "LOOK_EVERY_S", 0.0)
    pool = pool_on("a", "b", told=[])
    pool.shrink()
    assert [worker.name for worker in pool.workers] == ["worker-0"]  # the other held nothing yet
    for _ in range(3):
        pool.start_missing(None)
    assert started == []
    free["c"] = {"CPU": 1.0}
    for _ in range(2):
        pool.start_missing(None)
    assert started == [(1, "", True)]


def test_a_drain_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history with a line a second would hide all else."""
    seen: dict[str, float | None] = {}
    monkeypatch.setattr(drains_module, "draining_nodes", lambda: dict(seen))
    drains = Drains()
    assert drains.look(0.0) == []
    seen["a"] = 30.0
    assert drains.look(0.5) == []  # not yet
    assert drains.look(1.0) == ["a"]
    seen["b"] = None
    assert drains.look(2.0) == ["b"]
    assert drains.look(3.0) == []
    assert drains.nodes == {"a": 30.0, "b": None}
