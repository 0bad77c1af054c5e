"""A fleet uses what nobody else could use, and gives it back as soon as somebody could."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.fleet.loan import LATE_START, RoomLoan
from orchestrator.jobs.queue import SNAPSHOT, set_quota
from orchestrator.lifecycle.state import Placement
from orchestrator.scheduling.borrowing import somebody_could_start
from orchestrator.scheduling.snapshot import Loan, QueuedJob, RunningJob, Snapshot
from orchestrator.store import keys
from tests.support.fakes import FaultyStore, MemoryStore
from tests.support.scheduling import gang, job, node


def loans(job_id: str = "own", **workers: int) -> list[Loan]:
    """Return what the workers of a fleet, of one CPU and one GPU each, hold on some nodes."""
    return [
        Loan(job_id=job_id, node_id=name, cpus=float(n), gpus=float(n))
        for name, n in workers.items()
    ]


def full_cluster(*queue: QueuedJob, free: int = 0) -> Snapshot:
    """Return two nodes of four GPUs with so many free on the first, and jobs that wait."""
    nodes = [replace(node("a", 4), free_gpus=float(free)), replace(node("b", 4), free_gpus=0.0)]
    return Snapshot(nodes=nodes, queue=queue)


def test_room_that_would_let_a_job_start_is_wanted() -> None:
    """Two borrowed GPUs beside a free one are what a job of three waits for."""
    waiting = gang("three-0", 3)
    snapshot = full_cluster(waiting, free=1)
    assert somebody_could_start(snapshot, ["three-0"], loans(a=2), "own", 0.0)
    assert not somebody_could_start(snapshot, ["three-0"], loans(a=1), "own", 0.0)


def test_room_that_helps_nobody_stays_borrowed() -> None:
    """Leaving for a job that could not start all the same would only waste what is free."""
    held_back = job("later-0", not_before=100.0)
    for snapshot in (
        full_cluster(gang("huge-0", 9)),
        full_cluster(job("model-0", waits_for="the end of job digits")),
        full_cluster(held_back),
    ):
        waiting = [queued.job_id for queued in snapshot.queue]
        assert not somebody_could_start(snapshot, waiting, loans(a=4, b=3), "own", 0.0)
    assert somebody_could_start(full_cluster(held_back), ["later-0"], loans(a=1), "own", 101.0)


def test_a_job_that_has_started_since_is_not_waited_for() -> None:
    """The snapshot is written only while somebody waits, so it may be old."""
    snapshot = full_cluster(job("gone-0"))
    assert not somebody_could_start(snapshot, [], loans(a=1), "own", 0.0)


def test_a_job_that_several_fleets_keep_from_starting_gets_what_all_of_them_borrowed() -> None:
    """Each alone would keep its room, since giving that back alone would let nobody start."""
    snapshot = replace(full_cluster(gang("six-0", 6)), loans=loans("other", a=3))
    assert not somebody_could_start(full_cluster(gang("six-0", 6)), ["six-0"], loans(b=3), "own", 0)
    assert somebody_could_start(snapshot, ["six-0"], loans(b=3), "own", 0.0)
    enough = replace(full_cluster(gang("three-0", 3)), loans=loans("other", a=3))
    assert not somebody_could_start(enough, ["three-0"], loans(b=2), "zoo", 0.0)


def test_of_more_fleets_than_a_job_needs_some_leave_and_some_stay() -> None:
    """If each left it to the others, none would ever leave."""
    names = ("f-0", "f-1", "f-2")
    held = [loan for name in names for loan in loans(name, a=1)]
    snapshot = replace(full_cluster(gang("two-0", 2)), loans=held)
    leaving = [
        name
        for name in names
        if somebody_could_start(snapshot, ["two-0"], loans(name, a=1), name, 0.0)
    ]
    assert leaving == ["f-0", "f-1"]


def test_a_job_that_would_start_in_the_place_of_the_fleet_itself_gets_the_room() -> None:
    """Borrowed room and one placed worker of lower priority are what it needs."""
    fleet = RunningJob(
        job_id="own", priority=10, gpus_per_worker=1.0, placement={"a": 1}, started_at=0.0
    )
    urgent = gang("urgent-0", 4, priority=90)
    snapshot = Snapshot(
        nodes=[replace(node("a", 4), free_gpus=0.0)], queue=[urgent], running=[fleet]
    )
    assert somebody_could_start(snapshot, ["urgent-0"], loans(a=3), "own", 0.0)
    assert not somebody_could_start(snapshot, ["urgent-0"], loans(a=2), "own", 0.0)


def loan_of(store: MemoryStore | FaultyStore, gpus: float = 0.0) -> RoomLoan:
    """Return the loan of job `own`, whose workers have one CPU."""
    placement = Placement(workers_by_node={"a": 1}, cpus_per_worker=1, gpus_per_worker=gpus)
    return RoomLoan(store, "default", "own", placement)  # type: ignore[arg-type]


def write_index(store: MemoryStore, **states: str) -> None:
    """Have the orchestrator write down which jobs live."""
    changed_at = store.now().isoformat()
    live: list[dict[str, Any]] = [
        {
            "job_id": name.replace("_", "-"),
            "kind": "sweep" if name.startswith("sweep") else "sample",
            "name": name,
            "submitted_at": changed_at,
            "state": state.removesuffix(", lacking"),
            "phase": "running",
            "num_unplaced": int(state.endswith(", lacking")),
            "changed_at": changed_at,
        }
        for name, state in states.items()
    ]
    store.put(keys.INDEX, json.dumps({"live": live, "ended": []}).encode())


def test_room_is_free_for_all_where_nobody_waits() -> None:
    """Jobs that run hold what they need, and a fleet does not stand in its own way."""
    store = MemoryStore()
    assert loan_of(store).may_begin()
    write_index(store, own="STARTING", other="RUNNING")
    assert loan_of(store).may_begin()
    assert not loan_of(store).must_end({"a": 3})


def test_a_fleet_without_its_own_workers_gets_room_and_a_group_needs_none() -> None:
    """Who lost a worker has a right to its place; who only waits for others takes none."""
    store = MemoryStore()
    write_index(store, own="RUNNING", sweep="STARTING", other="RUNNING, lacking")
    loan = loan_of(store)
    assert not loan.may_begin()
    assert not loan.must_end({"a": 1})  # it may be on its way
    assert loan.must_end({"a": 1})
    for done in ("RUNNING", "QUEUED, lacking", "STOPPING, lacking"):  # the last heartbeat stays
        write_index(store, own="RUNNING", other=done)
        store.put(keys.SNAPSHOT, SNAPSHOT.encode(Snapshot()))
        assert not loan_of(store).must_end({"a": 1})
        assert loan_of(store).may_begin()
    write_index(store, own="RUNNING", sweep="STARTING", other="RUNNING")
    store.advance(LATE_START.total_seconds() + 1)
    assert loan.may_begin()
    assert not loan.must_end({"a": 1})


def test_what_a_placement_names_is_not_free_when_a_loan_is_given_back() -> None:
    """A fleet would leave for a job that cannot start all the same, and again and again."""
    full = replace(node("a", 0, cpus=4), free_cpus=1.0)
    waiting = gang("two-0", 3, gpus=0.0)

    def leaves(unplaced_cpus: float | None) -> bool:
        seen = Snapshot(nodes=[replace(full, unplaced_cpus=unplaced_cpus)], queue=[waiting])
        return somebody_could_start(seen, ["two-0"], [loan], "own", 0.0)

    loan = Loan(job_id="own", node_id="a", cpus=2.0, gpus=0.0)
    assert leaves(3.0)
    assert not leaves(2.0)


def test_a_job_that_waits_gets_the_room() -> None:
    """It was admitted by the rules of the queue; the fleet only helped itself."""
    store = MemoryStore()
    one_cpu = job("waits-0", gpus=0.0)
    nodes = [replace(node("a", 0, cpus=4), free_cpus=0.0)]
    store.put(keys.SNAPSHOT, SNAPSHOT.encode(Snapshot(nodes=nodes, queue=[one_cpu])))
    write_index(store, own="RUNNING", waits_0="QUEUED")
    assert loan_of(store).must_end({"a": 1})
    assert not loan_of(store).must_end({})
    assert loan_of(store).may_begin()  # what is free does not let the other start


def test_a_job_on_its_way_is_not_robbed_of_its_room() -> None:
    """It is admitted, but holds nothing in Ray's eyes until its workers are there."""
    store = MemoryStore()
    write_index(store, own="RUNNING", other="STARTING")
    assert not loan_of(store).may_begin()
    assert not loan_of(store).must_end({"a": 1})
    store.advance((LATE_START + timedelta(seconds=1)).total_seconds())
    assert loan_of(store).must_end({"a": 1})


def test_a_quota_lends_no_gpu() -> None:
    """A limit is a limit, also for what would be free."""
    store = MemoryStore()
    set_quota(store, "default", 1.0)
    assert not loan_of(store, gpus=1.0).may_begin()
    assert loan_of(store, gpus=1.0).must_end({"a": 1})
    assert loan_of(store, gpus=0.0).may_begin()


@pytest.mark.parametrize("fail_at", [1, 2])
def test_an_outage_changes_nothing(fail_at: int) -> None:
    """A store that does not answer is no reason to take room, nor to give it up."""
    store = MemoryStore()
    write_index(store, own="RUNNING", other="QUEUED")
    assert not loan_of(FaultyStore(store, fail_at, dead=True)).may_begin()
    assert not loan_of(FaultyStore(store, fail_at, dead=True)).must_end({"a": 1})
