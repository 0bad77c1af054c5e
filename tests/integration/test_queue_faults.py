"""What the queue promises, on a cluster of several nodes of which some are killed."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.client.ensure import ensure_orchestrator
from orchestrator.client.status import request
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.jobs.heartbeat import HEARTBEAT
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobRecord, JobState, Reason
from orchestrator.stack.embedded import StackInfo
from orchestrator.stack.parts import http_get
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.integration.commands import (
    ddpmctl,
    registered_processes,
    submit,
    train_text,
    wait_until,
)
from tests.integration.nodes import extra_node

TRUE_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def store(stack_info: StackInfo) -> ObjectStore:
    """The store of the session's stack, with an orchestrator that acts."""
    store = open_store(stack_info.environment["DDPMCTL_STORE"])
    ensure_orchestrator(store, lambda line: None)
    return store


def record_of(store: ObjectStore, job_id: str) -> JobRecord:
    """Return a job's record."""
    return RecordStore(store).read(job_id).record


def is_in(store: ObjectStore, job_id: str, *states: JobState) -> Callable[[], bool]:
    """Return a look at whether a job is in one of these states."""
    return lambda: record_of(store, job_id).state in states


def done(store: ObjectStore, job_id: str, attempt: int, key: str = "done") -> int:
    """Return the steps that an attempt's last heartbeat tells of."""
    said = HEARTBEAT.value(store, JobPaths(job_id).attempt(attempt).heartbeat)
    return int(getattr(said, key)) if said else 0


def told(store: ObjectStore, job_id: str) -> str:
    """Return what all events of a job say."""
    return "\n".join(event.message for event in RecordStore(store).events(job_id))


def kill(pid: int) -> None:
    """End a process as a crash does."""
    os.kill(pid, signal.SIGKILL)


def sized(text: str, cpus: int, priority: int = 50) -> str:
    """Return a job file that asks for more CPUs, at a priority."""
    return text.replace("cpus_per_worker: 1", f"cpus_per_worker: {cpus}") + f"priority: {priority}"


def node_of_one_cpu(info: StackInfo, *, besides: str | None = None) -> str | None:
    """Return the Ray id of the node that has one CPU, once it is there.

    Args:
        info: The stack of the tests.
        besides: One of an earlier test, which Ray may not yet know to be dead.
    """
    port, token = urlsplit(info.ray_url).port, info.ray_token_file.read_text()
    nodes = json.loads(http_get(int(port or 0), "/nodes?view=summary", token)[1])["data"]["summary"]
    raylets = [node["raylet"] for node in nodes if node["raylet"].get("state") == "ALIVE"]
    found = [r["nodeId"] for r in raylets if r["resourcesTotal"].get("CPU") == 1]
    found = [node_id for node_id in found if node_id != besides]
    return found[0] if found else None


def test_a_training_outlives_its_node(
    store: ObjectStore, stack_info: StackInfo, tmp_path: Path
) -> None:
    """Within 30 s its state says so, and it goes on from its last checkpoint on another node."""
    with extra_node(stack_info, tmp_path, num_cpus=1) as node:
        wait_until(lambda: node_of_one_cpu(stack_info) is not None)
        lost = node_of_one_cpu(stack_info)
        job_id = submit(tmp_path, train_text("node", steps=200, every=10))
        wait_until(lambda: done(store, job_id, 1, "committed") >= 10)
        assert record_of(store, job_id).attempts[0].node_ids == (lost,)
        node.kill()
        killed_at = time.monotonic()
        wait_until(lambda: record_of(store, job_id).state is not JobState.RUNNING)
        assert time.monotonic() - killed_at < TRUE_WITHIN_S
        assert ddpmctl("wait", job_id).exit_code == 0
    record = record_of(store, job_id)
    first, last = record.attempts[0], record.attempts[-1]
    assert first.reason in (Reason.NODE_LOST, Reason.WORKER_LOST)  # as fast as Ray finds out
    assert first.failed_node_ids == (lost,)
    assert first.progress >= 10
    assert f"goes on from step {first.progress}" in told(store, job_id)
    assert last.node_ids != (lost,)


def test_a_training_leaves_a_node_that_is_drained(
    store: ObjectStore, stack_info: StackInfo, tmp_path: Path
) -> None:
    """Ray's own drain, with a spot machine's notice: no finished step is done again."""
    earlier = node_of_one_cpu(stack_info)
    with extra_node(stack_info, tmp_path, num_cpus=1):
        wait_until(lambda: node_of_one_cpu(stack_info, besides=earlier) is not None)
        leaving = node_of_one_cpu(stack_info, besides=earlier)
        job_id = submit(tmp_path, train_text("drained", steps=300, every=1000))
        wait_until(lambda: done(store, job_id, 1) >= 10)
        assert record_of(store, job_id).attempts[0].node_ids == (leaving,)
        drain = (
            f"ray drain-node --node-id {leaving} --reason DRAIN_NODE_REASON_PREEMPTION "
            "--reason-message spot --deadline-remaining-seconds 60"
        )
        RayJobs().submit(f"drain-{job_id}", drain, metadata={})
        assert ddpmctl("wait", job_id).exit_code == 0
    record, story = record_of(store, job_id), told(store, job_id)
    first, last = record.attempts
    assert first.reason is Reason.PREEMPTED
    assert f"node {str(leaving)[:12]} is being drained" in story
    assert first.progress >= 10  # saved on the way out: it would have been at the end alone
    assert f"goes on from step {first.progress}" in story
    assert last.node_ids != (leaving,)
    assert record.avoided_nodes == ()


def test_room_is_made_by_a_checkpoint_though_the_orchestrator_dies_meanwhile(
    store: ObjectStore, tmp_path: Path
) -> None:
    """No finished step is redone, the higher priority runs, and the victim comes back and ends."""
    low = submit(tmp_path, sized(train_text("low", steps=400, every=350), 3, priority=10))
    wait_until(lambda: done(store, low, 1) >= 20)
    high = submit(tmp_path, sized(train_text("high", steps=10), 3, priority=90))
    wait_until(is_in(store, low, JobState.STOPPING))
    lease = read_lease(store)
    assert lease is not None
    kill(lease.holder.pid)
    assert ddpmctl("wait", high).exit_code == 0
    assert ddpmctl("wait", low).exit_code == 0
    victim, winner = record_of(store, low), record_of(store, high)
    assert [attempt.reason for attempt in victim.attempts] == [Reason.PREEMPTED, None]
    saved = victim.attempts[0].progress
    assert 20 <= done(store, low, 1) <= saved < 350
    assert f"goes on from step {saved}" in told(store, low)
    first, second = victim.attempts
    (run,) = winner.attempts
    assert first.ended_at is not None
    assert run.ended_at is not None
    assert first.ended_at <= run.started_at
    assert run.ended_at <= second.started_at


def test_a_driver_that_dies_while_it_starts_is_followed_by_one_other(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Behind a smoke test that passed; nothing is lost, and the two never run at once."""
    job_id = submit(tmp_path, train_text("early", steps=10), "--smoke")
    wait_until(lambda: record_of(store, job_id).reason is Reason.WAITING_FOR_SMOKE)
    wait_until(lambda: bool(registered_processes(store, job_id, 1, "driver")))
    smoke = record_of(store, f"{job_id}-smoke")
    assert (smoke.state, smoke.message) == (JobState.SUCCEEDED, "smoke test passed")
    assert record_of(store, job_id).state is JobState.STARTING
    kill(registered_processes(store, job_id, 1, "driver")[0])
    assert ddpmctl("wait", job_id).exit_code == 0
    first, second = record_of(store, job_id).attempts
    assert (first.reason, second.reason) == (Reason.DRIVER_LOST, None)
    assert first.ended_at is not None
    assert first.ended_at <= second.started_at


def test_a_quota_holds_though_gpus_are_free(
    store: ObjectStore, stack_info: StackInfo, tmp_path: Path
) -> None:
    """`queue set` binds at once, and lifting it lets the next one go."""
    text = train_text("quota", steps=10).replace("gpus_per_worker: 0", "gpus_per_worker: 1")
    with extra_node(stack_info, tmp_path, num_cpus=2, num_gpus=2):
        assert ddpmctl("queue", "set", "team", "--gpus", "1").exit_code == 0
        one, two = (submit(tmp_path, f"{text}queue: team") for _ in range(2))
        wait_until(lambda: record_of(store, one).attempt == 1)
        assert record_of(store, two).state is JobState.QUEUED
        told_why = ddpmctl("explain", two).value
        assert told_why["verdict"] == "not now"
        assert "hold 1 of its 1 GPU" in told_why["reason"]
        assert ddpmctl("queue", "set", "team", "--gpus", "2").exit_code == 0
        wait_until(lambda: record_of(store, two).attempt == 1)
        for job_id in (one, two):
            request(store, job_id, Verb.CANCEL, 0)
        for job_id in (one, two):
            wait_until(lambda name=job_id: record_of(store, name).state.has_ended)
