"""A fleet uses what nobody else could use, and gives it back as soon as somebody could."""

from dataclasses import replace

from orchestrator.scheduling.borrowing import leaving
from orchestrator.scheduling.requests import Loan, QueuedJob, RunningJob
from orchestrator.scheduling.snapshot import Snapshot
from tests.support.scheduling import gang, job, node


def loans(job_id: str = "own", **workers: int) -> list[Loan]:
    """Return what the workers of a fleet, of one CPU and one GPU each, hold on some nodes."""
    return [
        Loan(job_id=job_id, node_id=name, cpus=float(n), gpus=float(n))
        for name, n in workers.items()
    ]


def leaves(snapshot: Snapshot, own: list[Loan], now: float = 0.0, name: str = "own") -> bool:
    """Tell whether a fleet gives back what it has borrowed."""
    return name in leaving(replace(snapshot, loans=[*snapshot.loans, *own]), now)


def full_cluster(*queue: QueuedJob, free: int = 0) -> Snapshot:
    """Return two nodes of four GPUs with so many free on the first, and jobs that wait."""
    nodes = [replace(node("a", 4), free_gpus=float(free)), replace(node("b", 4), free_gpus=0.0)]
    return Snapshot(nodes=nodes, queue=queue)


def test_room_that_would_let_a_job_start_is_wanted() -> None:
    """Two borrowed GPUs beside a free one are what a job of three waits for."""
    waiting = gang("three-0", 3)
    snapshot = full_cluster(waiting, free=1)
    assert leaves(snapshot, loans(a=2))
    assert not leaves(snapshot, loans(a=1))


def test_room_that_helps_nobody_stays_borrowed() -> None:
    """Leaving for a job that could not start all the same would only waste what is free."""
    held_back = job("later-0", not_before=100.0)
    for snapshot in (
        full_cluster(gang("huge-0", 9)),
        full_cluster(job("model-0", waits_for="the end of job digits")),
        full_cluster(held_back),
    ):
        assert not leaves(snapshot, loans(a=4, b=3))
    assert leaves(full_cluster(held_back), loans(a=1), 101.0)


def test_a_job_that_several_fleets_keep_from_starting_gets_what_all_of_them_borrowed() -> None:
    """Each alone would keep its room, since giving that back alone would let nobody start."""
    snapshot = replace(full_cluster(gang("six-0", 6)), loans=loans("other", a=3))
    assert not leaves(full_cluster(gang("six-0", 6)), loans(b=3))
    assert leaves(snapshot, loans(b=3))
    enough = replace(full_cluster(gang("three-0", 3)), loans=loans("other", a=3))
    assert not leaves(enough, loans("zoo", b=2), name="zoo")


def test_of_more_fleets_than_a_job_needs_some_leave_and_some_stay() -> None:
    """If each left it to the others, none would ever leave."""
    names = ("f-0", "f-1", "f-2")
    held = [loan for name in names for loan in loans(name, a=1)]
    snapshot = replace(full_cluster(gang("two-0", 2)), loans=held)
    assert leaving(snapshot, 0.0) == {"f-0", "f-1"}


def test_a_job_that_would_start_in_the_place_of_the_fleet_itself_gets_the_room() -> None:
    """Borrowed room and one placed worker of lower priority are what it needs."""
    fleet = RunningJob(
        job_id="own", priority=10, gpus_per_worker=1.0, placement={"a": 1}, started_at=0.0
    )
    urgent = gang("urgent-0", 4, priority=90)
    snapshot = Snapshot(
        nodes=[replace(node("a", 4), free_gpus=0.0)], queue=[urgent], running=[fleet]
    )
    assert leaves(snapshot, loans(a=3))
    assert not leaves(snapshot, loans(a=2))


def test_what_a_placement_names_is_not_free_when_a_loan_is_given_back() -> None:
    """A fleet would leave for a job that cannot start all the same, and again and again."""
    full = replace(node("a", 0, cpus=4), free_cpus=1.0)
    waiting = gang("two-0", 3, gpus=0.0)

    loan = Loan(job_id="own", node_id="a", cpus=2.0, gpus=0.0)
    for unplaced_cpus, is_enough in ((3.0, True), (2.0, False)):
        seen = Snapshot(nodes=[replace(full, unplaced_cpus=unplaced_cpus)], queue=[waiting])
        assert leaves(seen, [loan]) is is_enough
