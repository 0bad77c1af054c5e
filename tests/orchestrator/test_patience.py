"""What never answers: nothing waits for it for ever."""

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.attempts import running
from orchestrator.attempts.attempt import Attempt
from orchestrator.client import ensure
from orchestrator.client.ensure import Keeper
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.controller.leading import end_if_stuck
from orchestrator.errors import RayUnavailableError
from orchestrator.fleet.plan import PoolPlan
from orchestrator.fleet.pool import WorkerPool
from orchestrator.fleet.workers import PoolWorker
from tests.support.fakes import MemoryStore
from tests.support.pool import Desk


@pytest.fixture
def silent_address() -> Iterator[str]:
    """The address of a server that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_silent_ray_is_given_up_and_not_asked_again_at_once(
    silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that asks for each of many jobs has a lease to renew."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "any")
    now = [0.0]
    jobs = RayJobs(silent_address, answer_within_s=1.0, clock=lambda: now[0])
    with pytest.raises(RayUnavailableError, match="timed out"):
        jobs.status("a.1")
    for verb in (jobs.status, jobs.message, jobs.logs, jobs.stop):
        with pytest.raises(RayUnavailableError, match="in vain"):
            verb("b.1")
    now[0] += 1.0
    with pytest.raises(RayUnavailableError, match="timed out"):
        jobs.status("a.1")


def test_a_process_whose_loop_is_stuck_ends() -> None:
    """Its lease runs out, but nobody else would start an orchestrator."""
    signs = iter([1, 2, 2, 3, 3, 3, 3, 4])
    looks: list[int] = []

    def look() -> int:
        looks.append(next(signs))
        return looks[-1]

    end_if_stuck(look, lambda: looks.append(-1), look_every_s=0.0, patience=3)
    assert looks == [1, 2, 2, 3, 3, 3, 3, -1]


def test_a_worker_that_others_wait_for_and_that_does_not_leave_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that hangs would keep its room, and a job would wait for it for ever."""
    ended: list[Any] = []
    monkeypatch.setattr("orchestrator.fleet.pool.ray.kill", ended.append)
    pool = WorkerPool(Desk(), PoolPlan(nodes=("a",), max_workers=3, cpus=1.0))
    now = time.monotonic()
    for rank, leave_by in enumerate((None, now + 60.0, now - 1.0)):
        worker = PoolWorker(
            name=f"worker-{rank}", rank=rank, slot=rank, actor=rank, asked_at=now, leave_by=leave_by
        )
        pool.workers.append(worker)
    lost = [(worker.name, answer) for worker, answer in pool.answers(timeout_s=0.0)]
    assert lost == [("worker-2", None)]
    assert ended == [2]
    assert [worker.name for worker in pool.workers] == ["worker-0", "worker-1"]


def test_a_fleet_lacks_whom_it_was_given_asks_for_and_does_not_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A place whose worker just died, or one beyond its own, is not asked for in vain."""
    monkeypatch.setattr("ray.wait", lambda calls, timeout: ([c for c in calls if c], calls))
    pool = WorkerPool(Desk(), PoolPlan(nodes=("a", "a", "a"), max_workers=5, cpus=1.0))
    for slot, has_started in ((0, True), (1, False), (3, False)):
        pool.workers.append(
            PoolWorker(
                name=f"worker-{slot}",
                rank=slot,
                slot=slot,
                actor=slot,
                asked_at=0.0,
                started=has_started,
            )
        )
    assert pool.num_unplaced == 1


def test_whoever_waits_for_a_job_has_an_orchestrator_that_is_gone_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing would ever move otherwise, and nobody would say why."""
    said: list[str] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ensure, "LOOK_EVERY_S", 0.0)
    keeper = Keeper(MemoryStore(), said.append)
    keeper.look()
    assert said == []  # a store may be slow for a moment
    keeper.look()
    assert said[0] == "starting the orchestrator on the Ray cluster"
    assert "the job waits: RAY_ADDRESS is not set" in said[1]


def test_a_heartbeat_outlives_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it no stop is heard, and the attempt looks dead."""
    looks: list[int] = []
    ended = threading.Event()

    def broken(_: Attempt) -> bool:
        looks.append(1)
        if len(looks) == 3:
            ended.set()
        raise KeyError("at")

    monkeypatch.setattr(running, "STOP_POLL_EVERY_S", 0.01)
    monkeypatch.setattr(running, "must_stop", broken)
    monkeypatch.setattr(Attempt, "beat", lambda self: None)
    record: Any = SimpleNamespace(job_id="a")
    running.beat_until(Attempt(MemoryStore(), record, record, 1), ended)
    assert len(looks) == 3
