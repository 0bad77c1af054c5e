"""The orchestrator alone decides what fleets do with room that they were not given."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.running import must_stop
from orchestrator.client.submit import submit_job
from orchestrator.controller.adoption import LiveJob
from orchestrator.controller.lending import LACKS_LASTINGLY, LATE_START, Lender
from orchestrator.jobs.heartbeat import HEARTBEAT, Heartbeat, WorkerReport
from orchestrator.jobs.records import VersionedRecord
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import (
    JobState,
    Lending,
    Placement,
    Reason,
    ResolvedResources,
)
from orchestrator.scheduling.requests import Loan
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.specs.resources import SampleResources, TrainResources, WorkerRange
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store.keys import JobPaths
from tests.support.models import model_of
from tests.support.records import record_of
from tests.support.scheduling import gang, job, node
from tests.support.world import World, train_job

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = model_of("t", 1)


RESOURCES = ResolvedResources(min_workers=1, max_workers=3, cpus_per_worker=1, gpus_per_worker=0)


def live(
    job_id: str, state: JobState = JobState.RUNNING, gpus: float = 0.0, num_unplaced: int = 0
) -> LiveJob:
    """Return a job with one worker of at most three."""
    record = record_of(
        job_id,
        at=NOW,
        kind="sample",
        state=state,
        placement=Placement(workers_by_node={"a": 1}, cpus_per_worker=1, gpus_per_worker=gpus),
        resources=replace(RESOURCES, gpus_per_worker=gpus),
    )
    said = Heartbeat(phase=Phase.RUNNING, num_unplaced=num_unplaced)
    return LiveJob(train_job(), VersionedRecord(record, "1"), said)


def answer(
    *others: LiveJob,
    snapshot: Snapshot = Snapshot(),  # noqa: B008 - frozen
    own: LiveJob | None = None,
    after: timedelta = timedelta(),
) -> Lending:
    """Return what the fleet "own" is told by a lender that sees this for the first time."""
    return Lender().decide([own or live("own"), *others], snapshot, NOW + after)["own"]


def test_room_is_free_for_all_where_nobody_waits() -> None:
    """Jobs that run hold what they need, and a fleet does not stand in its own way."""
    assert answer() is Lending.MORE
    assert answer(live("other")) is Lending.MORE
    assert answer(own=live("own", num_unplaced=1)) is Lending.MORE


def test_only_who_could_use_more_workers_is_answered() -> None:
    """A training has one size, and who starts has not even what it was given."""
    full = live("full")
    placement = Placement(workers_by_node={"a": 3}, cpus_per_worker=1, gpus_per_worker=0)
    full.current = VersionedRecord(replace(full.record, placement=placement), "1")
    starts = live("starts", JobState.STARTING)
    assert Lender().decide([full, starts], Snapshot(), NOW) == {}


def test_a_job_that_waits_gets_the_room_that_it_could_start_in() -> None:
    """It was admitted by the rules of the queue; the fleet only helped itself."""
    nodes = [replace(node("a", 0, cpus=4), free_cpus=0.0)]
    waits = live("waits-0", JobState.QUEUED)
    borrowed = [Loan(job_id="own", node_id="a", cpus=1.0, gpus=0.0)]
    snapshot = Snapshot(nodes=nodes, queue=[job("waits-0", gpus=0.0)], loans=borrowed)
    assert answer(waits, snapshot=snapshot) is Lending.BACK
    too_large = replace(snapshot, queue=[gang("waits-0", 2, gpus=0.0)])
    assert answer(waits, snapshot=too_large) is Lending.MORE  # what is free helps it no more
    could = replace(snapshot, nodes=[node("a", 0, cpus=4)], loans=[])
    assert answer(waits, snapshot=could) is Lending.KEEP


def test_a_job_on_its_way_is_not_robbed_of_its_room() -> None:
    """It is admitted, but holds nothing in Ray's eyes until its workers are there."""
    starting = live("other", JobState.STARTING)
    assert answer(starting) is Lending.KEEP
    assert answer(starting, after=LATE_START) is Lending.KEEP
    assert answer(starting, after=LATE_START + timedelta(seconds=1)) is Lending.BACK


def test_a_fleet_without_its_own_workers_gets_room() -> None:
    """Who lost a worker has a right to its place, unless the worker is on its way."""
    lender, jobs = Lender(), [live("own"), live("other", num_unplaced=1)]

    def told(jobs: list[LiveJob], after: timedelta) -> Mapping[str, Lending]:
        return lender.decide(jobs, Snapshot(), NOW + after)

    first = told(jobs, timedelta())
    assert first == {"own": Lending.KEEP, "other": Lending.MORE}
    assert told(jobs, LACKS_LASTINGLY)["own"] is Lending.BACK
    assert told([live("own"), live("other")], LACKS_LASTINGLY)["own"] is Lending.MORE
    assert told(jobs, LACKS_LASTINGLY * 2)["own"] is Lending.KEEP  # a new lack
    stops = live("other", JobState.STOPPING, num_unplaced=1)  # the last heartbeat stays
    assert told([live("own"), stops], LACKS_LASTINGLY * 3)["own"] is Lending.MORE


def test_a_quota_lends_no_gpu() -> None:
    """A limit is a limit, also for what would be free."""
    limited = Snapshot(quotas={"default": 1.0})
    assert answer(own=live("own", gpus=1.0), snapshot=limited) is Lending.BACK
    assert answer(own=live("own"), snapshot=limited) is Lending.MORE


def test_a_job_with_a_limit_on_gpu_hours_borrows_nothing() -> None:
    """What is borrowed is counted nowhere, so the limit would not hold."""
    own = live("own")
    own.spec = own.spec.model_copy(update={"max_gpu_hours": 1.0})
    assert answer(own=own) is Lending.KEEP


def test_a_fleet_whose_node_is_about_to_go_may_look_for_room_elsewhere() -> None:
    """It has no more workers than it was given, and no place for all of them."""
    full = live("own")
    resources = replace(full.record.resources or RESOURCES, max_workers=1)
    full.current = VersionedRecord(replace(full.record, resources=resources), "1")
    stays, goes = node("a", 0, cpus=4), replace(node("a", 0, cpus=4), is_draining=True)
    assert Lender().decide([full], Snapshot(nodes=[stays]), NOW) == {}
    assert answer(own=full, snapshot=Snapshot(nodes=[goes])) is Lending.MORE


@pytest.fixture
def world() -> World:
    """A fleet that runs on one of four CPUs, and could have three."""
    world = World()
    resources = SampleResources(num_workers=WorkerRange(min=1, max=3), cpus_per_worker=2)
    spec = SampleJob(
        kind="sample", name="own", model=ModelRef(job="t"), num_samples=8, resources=resources
    )
    submit_job(world.store, spec, "own")
    current = world.records.read("own")
    world.records.write(current, replace(current.record, model=MODEL))
    world.controller = world.new_controller()
    world.cluster.cpus = 2  # room for one worker
    world.step()
    world.begin("own")
    world.cluster.cpus = 4
    return world


def beat(world: World, num_workers: int) -> None:
    """Have the fleet tell of its workers."""
    workers = tuple(WorkerReport(rank=rank, node_id="n1") for rank in range(num_workers))
    said = Heartbeat(at=world.store.now(), phase=Phase.RUNNING, workers=workers)
    world.store.put(JobPaths("own").attempt(1).heartbeat, HEARTBEAT.encode(said))


def allowed(attempt: Attempt) -> Lending:
    """Return what the driver knows that it may do."""
    return attempt.allowance.lending


def test_what_is_decided_stands_beside_the_placement_and_the_driver_reads_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at no queue itself: two deciders saw different things, and one was unseen."""
    attempt = Attempt.open(world.store, "own", 1)
    assert allowed(attempt) is Lending.KEEP
    world.step()
    assert world.record("own").lending is Lending.MORE
    assert not must_stop(attempt)
    assert allowed(attempt) is Lending.MORE
    beat(world, 2)  # it has taken the other two CPUs
    taken = [replace(node, free_cpus=0.0) for node in world.cluster.nodes()]
    monkeypatch.setattr(world.cluster, "nodes", lambda: taken)
    two_cpus = TrainResources(num_workers=1, cpus_per_worker=2)
    submit_job(world.store, train_job().model_copy(update={"resources": two_cpus}), "waits")
    world.step()
    assert world.record("own").lending is Lending.BACK
    assert not must_stop(attempt)
    assert allowed(attempt) is Lending.BACK


def test_an_attempt_begins_without_borrowed_room(world: World) -> None:
    """What the last one was told is of another hour."""
    world.step()
    assert world.record("own").lending is Lending.MORE
    world.end("own", None)
    world.step(3)
    world.store.advance(600)
    world.step(2)
    record = world.record("own")
    assert (record.attempt, record.lending) == (2, Lending.KEEP)
    assert record.attempts[0].reason is Reason.DRIVER_LOST
