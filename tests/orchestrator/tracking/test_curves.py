"""A training's run shows what its checkpoints are worth, and its best is registered."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.errors import ConditionFailedError, StoreUnavailableError, TrackingError
from orchestrator.jobs.curve import CurvePoint, put_point, read_curve
from orchestrator.jobs.records import RECORD
from orchestrator.lifecycle.state import JobState
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.carrier import TrackingCarrier
from tests.support.fakes import FaultyStore, MemoryStore, MemoryTracking
from tests.support.records import record_of

AT = datetime(2026, 11, 29, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "kind": "train",
    "name": "t",
    "queue": "default",
    "priority": 50,
    "training": {"num_steps": 10},
    "evaluation": {"metrics": {"every_steps": 4}},
    "checkpoints": {"keep_best": "kid"},
    "tracking": {"experiment": "e", "registered_model": "digits"},
}
KIDS = {4: 0.3, 8: 0.1, 10: 0.2}


def put_job(store: MemoryStore, job_id: str, state: JobState, at_step: int = 0) -> None:
    """Put the training, or an evaluation of a step."""
    kind = "evaluate" if at_step else "train"
    spec = SPEC if not at_step else {"kind": kind, "name": job_id, "queue": "q", "priority": 0}
    origin = {"parent": "t", "step": f"at-{at_step}", "at_step": at_step} if at_step else {}
    body = json.dumps({"format_version": 1, "spec": spec, "origin": origin})
    store.put(JobPaths(job_id).spec, body.encode())
    record = record_of(
        job_id,
        at=AT,
        kind=kind,
        state=state,
        attempt=1,
        parent="t" if at_step else "",
        step=f"at-{at_step}" if at_step else "",
    )
    store.put(JobPaths(job_id).record, RECORD.encode(record))


def found(store: MemoryStore, step: int, kid: float) -> None:
    """Put what an evaluation found, and its end."""
    values = {"kid-pixels": kid, "kid-pixels_se": 0.01, "recall-pixels": 0.5}
    point = CurvePoint(
        step=step,
        at_ms=1000 + step,
        job_id=f"t-at-{step}",
        values=values,
        source=f"s3://b/{step}/",
        commit=f"s3://b/jobs/t/checkpoints/step-{step:09d}.json",
        sha256="e" * 64,
    )
    put_point(store, "t", point)
    put_job(store, f"t-at-{step}", JobState.SUCCEEDED, step)


def carried(store: MemoryStore | FaultyStore, server: MemoryTracking, *job_ids: str) -> None:
    """Carry jobs in order, each begun again at each error."""
    for job_id in job_ids:
        for _ in range(4):
            try:
                TrackingCarrier(store, server).carry(job_id)
                break
            except (TrackingError, StoreUnavailableError, ConditionFailedError):
                continue


def curve(server: MemoryTracking) -> list[tuple[int, float]]:
    """Return the values of the curve on the training's run."""
    (run_id,) = (run_id for run_id, job in server.jobs.items() if job == "t")
    values = server.metrics[run_id]
    return sorted((v.step, v.value) for v in values if v.name == "checkpoints/kid-pixels")


@pytest.fixture
def store() -> MemoryStore:
    """A store with a training whose three checkpoints were evaluated."""
    store = MemoryStore()
    put_job(store, "t", JobState.SUCCEEDED)
    for step, kid in KIDS.items():
        found(store, step, kid)
    return store


@pytest.mark.parametrize("side", ["store", "server"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_each_value_stands_once_on_the_trainings_run_whatever_fails(side: str, after: bool) -> None:
    """The call that fails is each in turn; the best of all is registered once and has the alias."""
    number, was_reached = 0, True
    while was_reached:
        number += 1
        memory = MemoryStore()
        put_job(memory, "t", JobState.SUCCEEDED)
        for step, kid in KIDS.items():
            found(memory, step, kid)
        faulty = FaultyStore(memory, number if side == "store" else 0, after=after)
        server = MemoryTracking(number if side == "server" else 0, after=after)
        carried(faulty, server, "t", "t-at-4", "t-at-8", "t-at-10")
        assert curve(server) == sorted(KIDS.items()), number
        assert server.models == [("digits", "t", 8)]
        assert server.aliases == {("digits", "best"): ("t", 8)}
        was_reached = (faulty if side == "store" else server).num_calls >= number
    assert number > 10


def test_evaluations_that_end_before_the_trainings_run_is_there_are_told_later(
    store: MemoryStore,
) -> None:
    """MLflow may have been away until the end, and then evaluations may be told first."""
    server = MemoryTracking()
    carried(store, server, "t-at-4", "t-at-8", "t-at-10")
    assert "t" not in server.jobs.values()
    carried(store, server, "t")
    assert curve(server) == sorted(KIDS.items())
    carried(store, server, "t")
    assert curve(server) == sorted(KIDS.items())


def test_a_checkpoint_that_was_gone_when_it_was_compared_is_never_registered(
    store: MemoryStore,
) -> None:
    """A model version without files would be what people draw from."""
    point = read_curve(store, "t")[1]
    store.delete(JobPaths("t").curve_point(8))
    put_point(store, "t", replace(point, source=""))
    server = MemoryTracking()
    carried(store, server, "t", "t-at-4", "t-at-8", "t-at-10")
    assert server.models == [("digits", "t", 10)]


def test_the_best_is_registered_when_no_evaluation_is_to_come(store: MemoryStore) -> None:
    """A version of a best that is no more would point at a checkpoint that was let go of."""
    server = MemoryTracking()
    store.delete(JobPaths("t").curve_point(10))
    put_job(store, "t-at-10", JobState.RUNNING, 10)
    carried(store, server, "t", "t-at-4", "t-at-8")
    assert server.models == []
    put_job(store, "t-at-10", JobState.FAILED, 10)
    carried(store, server, "t-at-10")
    assert server.aliases == {("digits", "best"): ("t", 8)}


def test_the_last_checkpoints_evaluation_is_waited_for_before_it_is_made(
    store: MemoryStore,
) -> None:
    """MLflow may be told of a training's end before its last evaluation is in the queue."""
    server = MemoryTracking()
    store.delete(JobPaths("t").curve_point(10))
    for key in (JobPaths("t-at-10").spec, JobPaths("t-at-10").record):
        store.delete(key)
    carried(store, server, "t", "t-at-4", "t-at-8")
    assert server.models == []


def test_without_keep_best_there_is_a_curve_and_no_model(store: MemoryStore) -> None:
    """Nobody asked for one."""
    spec = {**SPEC, "checkpoints": {"keep_best": None}}
    body = json.dumps({"format_version": 1, "spec": spec, "origin": {}})
    store.put(JobPaths("t").spec, body.encode())
    server = MemoryTracking()
    carried(store, server, "t", "t-at-4", "t-at-8", "t-at-10")
    assert curve(server) == sorted(KIDS.items())
    assert server.models == []


def test_a_run_that_somebody_deleted_holds_up_nothing(store: MemoryStore) -> None:
    """The evaluations have runs of their own."""
    server = MemoryTracking()
    store.delete(JobPaths("t").curve_point(8))
    carried(store, server, "t")
    told = curve(server)
    server.deleted.add(next(iter(server.jobs)))
    found(store, 8, KIDS[8])
    carried(store, server, "t-at-8")
    assert curve(server) == told == [(4, KIDS[4]), (10, KIDS[10])]
    assert server.statuses["run-2"][0] == "FINISHED"


def test_an_evaluation_that_never_ran_may_settle_which_is_the_best(store: MemoryStore) -> None:
    """It was cancelled in the queue, after all others had ended."""
    server = MemoryTracking()
    store.delete(JobPaths("t").curve_point(10))
    put_job(store, "t-at-10", JobState.RUNNING, 10)
    carried(store, server, "t", "t-at-4", "t-at-8")
    record = RECORD.decode(store.get(JobPaths("t-at-10").record).body)
    never = replace(record, state=JobState.CANCELLED, attempt=0)
    store.put(JobPaths("t-at-10").record, RECORD.encode(never))
    carried(store, server, "t-at-10")
    assert server.aliases == {("digits", "best"): ("t", 8)}
