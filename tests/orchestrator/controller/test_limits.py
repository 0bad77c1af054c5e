"""Limits in the real loop: a spent month stops jobs, their work saved; the next starts them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.cli.queue import queue_command
from orchestrator.client.limits import limits_now
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.errors import BadInputError, StoredFormError
from orchestrator.jobs.limits import GPU_HOURS, SUBMITTERS, read_usage, set_limit
from orchestrator.jobs.queue import read_snapshot, set_quota
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState, Reason
from orchestrator.scheduling.explanation import explain
from orchestrator.specs.envelope import Asked
from orchestrator.specs.files import load_submission
from orchestrator.store import keys
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs
from tests.support.world import World, train_job

CHAIN = """\
kind: pipeline
name: chain
steps:
  a:
    kind: train
    dataset: {source: digits}
    training: {num_steps: 10}
"""


@pytest.fixture
def world() -> World:
    """Four GPUs, at noon of the last day of a month."""
    store = MemoryStore()
    store.clock = datetime(2026, 11, 30, 12, tzinfo=UTC)
    world = World(store)
    world.cluster.gpus = 4
    return world


def running(world: World, name: str = "a", workers: int = 2) -> str:
    """A training of queue `team` that works on a GPU a worker."""
    asks = {"gpus_per_worker": 1}
    job_id = submit_job(world.store, train_job(name, workers, asks, queue="team")).job_id
    world.step()
    world.begin(job_id)
    world.step()
    assert world.state(job_id) == "RUNNING"
    return job_id


def test_a_spent_month_stops_a_job_with_its_work_saved_and_the_next_starts_it(world: World) -> None:
    """The budget holds without anybody awake, and without anything lost."""
    set_limit(world.store, GPU_HOURS, "team", 6.0)
    job_id = running(world)
    world.store.advance(2 * 3600)
    world.step()
    assert world.state(job_id) == "RUNNING"
    world.store.advance(3600)
    world.step()
    record = world.record(job_id)
    assert (record.state, record.reason) == (JobState.STOPPING, Reason.QUEUE_HOURS_SPENT)
    assert record.stop_grace_s >= 60  # for a checkpoint
    world.end(job_id, Outcome(stopped=True, progress=7, message="stopped after step 7"))
    world.step(5)
    record = world.record(job_id)
    assert (record.state, record.attempt) == (JobState.QUEUED, 1)
    assert "waits for the month that begins 2026-12-01 (UTC): queue team has used" in record.message
    told = explain(read_snapshot(world.store), job_id, world.store.now().timestamp())
    assert "queue team has used its 6 GPU-hours of 2026-11" in told.reason
    world.store.clock = datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC)
    world.step()
    assert (world.state(job_id), world.record(job_id).attempt) == ("STARTING", 2)


def test_a_job_that_finishes_while_it_is_told_to_pause_has_succeeded(world: World) -> None:
    """It was queued with all of its work done, and waited up to a month to find that out."""
    set_limit(world.store, GPU_HOURS, "team", 6.0)
    job_id = running(world)
    world.store.advance(3 * 3600)
    world.step()
    assert world.state(job_id) == "STOPPING"
    world.end(job_id, Outcome(succeeded=True, progress=10, message="all 10 steps"))
    world.step(2)
    record = world.record(job_id)
    assert (record.state, record.reason, record.message) == ("SUCCEEDED", None, "all 10 steps")
    assert [event.state for event in world.records.events(job_id)][-2:] == ["STOPPING", "SUCCEEDED"]
    assert record.attempts[-1].progress == 10
    world.store.clock = datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC)
    world.step()
    assert world.record(job_id).attempt == 1


def test_an_orchestrator_that_takes_over_counts_each_hour_once(world: World) -> None:
    """It reads the account, and the attempt that ended while nobody counted."""
    set_limit(world.store, GPU_HOURS, "team", 100.0)
    job_id = running(world)
    world.store.advance(3600)
    world.end(job_id, Outcome(succeeded=True, progress=10, message="done"))
    world.cluster.statuses[f"{job_id}.1"] = world.cluster.statuses[f"{job_id}.1"].SUCCEEDED
    world.step(3)
    assert world.state(job_id) == "SUCCEEDED"
    used = read_usage(world.store).used([], world.store.now())["team"]
    assert used == pytest.approx(2.0, rel=0.01)
    world.controller = world.new_controller()
    world.step(3)
    assert read_usage(world.store).used([], world.store.now())["team"] == used


def test_what_ended_just_before_a_crash_is_counted_by_the_next(world: World) -> None:
    """The record is written first; the process may die before the account is."""
    set_limit(world.store, GPU_HOURS, "team", 100.0)
    job_id = running(world)
    world.store.advance(3600)
    current = RecordStore(world.store).read(job_id)
    stopped = current.record.moved_to(
        JobState.STOPPING, at=world.store.now(), stop_target=JobState.CANCELLED
    )
    ended = stopped.moved_to(JobState.CANCELLED, at=world.store.now())
    world.records.write(current, ended.with_attempt(ended_at=world.store.now()))
    world.controller = world.new_controller()
    world.step()
    used = read_usage(world.store).used([], world.store.now())
    assert used["team"] == pytest.approx(2.0, rel=0.01)


def test_a_submitters_limit_holds_in_the_loop(world: World) -> None:
    """What the pure function says must reach the jobs that start."""
    set_limit(world.store, SUBMITTERS, "alice", 2)
    for name, owner in (("one", "alice"), ("two", "alice"), ("three", "bob")):
        spec = train_job(name, 2, {"gpus_per_worker": 1})
        submit_job(world.store, spec, name, Asked(parts={}, user=owner))
    world.step(2)
    states = {job_id: world.state(job_id) for job_id in ("one", "two", "three")}
    assert states == {"one": "STARTING", "two": "QUEUED", "three": "STARTING"}


def test_jobs_of_a_group_and_smoke_tests_are_their_submitters(world: World, tmp_path: Path) -> None:
    """A sweep would otherwise be nobody's, and its hundred runs below no limit."""
    file = tmp_path / "chain.yaml"
    file.write_text(CHAIN)
    submit_job(world.store, load_submission(file), "chain", Asked(parts={}, user="alice"))
    submit_with_smoke(world.store, train_job("b"), "b", Asked(parts={}, user="bob"))
    world.step(3)
    owners = {name: world.record(name).owner for name in ("chain", "chain-a", "b", "b-smoke")}
    assert owners == {"chain": "alice", "chain-a": "alice", "b": "bob", "b-smoke": "bob"}


def test_limits_are_set_and_shown_with_what_is_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sets one sees at once where the month stands."""
    verbs = Verbs(monkeypatch, world.store)
    running(world)
    world.store.advance(3600)
    world.step()
    said = verbs(queue_command, ["set", "team", "--gpu-hours", "50", "--gpus", "4"]).out
    assert "team: 4 GPUs\n" in said
    assert "team: 2.0 of 50 GPU-hours used in 2026-11" in said
    assert "submitter *: 8 GPUs" in verbs(queue_command, ["limit", "*", "--gpus", "8"]).out
    value = verbs(queue_command, ["show", "-o", "json"]).value
    assert value["quotas"] == {"team": 4.0}
    assert value["gpu_hours"] == {"team": 50.0}
    assert value["submitters"] == {"*": 8.0}
    assert value["used"]["team"] == pytest.approx(2.0, rel=0.01)
    verbs(queue_command, ["set", "team", "--gpu-hours", "-1"])
    assert limits_now(world.store).gpu_hours == {}
    with pytest.raises(BadInputError, match="--gpus, --gpu-hours or both"):
        verbs(queue_command, ["set", "team"])
    with pytest.raises(BadInputError, match="from 0 to"):
        verbs(queue_command, ["limit", "bob", "--gpus", "-3"])


@pytest.mark.parametrize(
    "config",
    [
        b"{",
        b"[]",
        b'{"quotas": 3}',
        b'{"quotas": {"team": "two"}}',
        b'{"gpu_hours_a_month": [1]}',
        b'{"submitters": {"ann": null}}',
    ],
)
def test_settings_that_nobody_can_read_stop_no_job(world: World, config: bytes) -> None:
    """Somebody edits them by hand at night; what held before holds on."""
    set_quota(world.store, "team", 2)
    world.step()
    world.store.put(keys.CONFIG, config)
    first = running(world)
    asks = {"gpus_per_worker": 1}
    second = submit_job(world.store, train_job("b", 2, asks, queue="team")).job_id
    world.step(2)
    assert (world.state(first), world.state(second)) == ("RUNNING", "QUEUED")
    with pytest.raises(StoredFormError, match=r"config\.json"):
        limits_now(world.store)
    world.store.put(keys.CONFIG, b"{}")
    world.step(2)
    assert world.state(second) == "STARTING"


def test_an_account_that_nobody_can_read_stops_no_job(world: World) -> None:
    """It stays as it is: a newer version may know more."""
    set_limit(world.store, GPU_HOURS, "team", 6.0)
    newer = b'{"format_version": 99}'
    world.store.put(keys.USAGE, newer)
    job_id = running(world)
    world.store.advance(8 * 3600)
    world.step(2)
    assert world.state(job_id) == "RUNNING"
    assert world.store.get(keys.USAGE).body == newer
