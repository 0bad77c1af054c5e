"""A submitter's jobs hold no more GPUs at once than was agreed; the others go on."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.explanation import explain
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.requests import QueuedJob, RunningJob
from orchestrator.scheduling.snapshot import Snapshot, Start
from orchestrator.scheduling.submitters import ANYBODY, within_limits

NODE = NodeCapacity(node_id="n", cpus=64, gpus=16, free_cpus=64, free_gpus=16)


def job(
    name: str, owner: str, workers: int = 1, least: int | None = None, **fields: float
) -> QueuedJob:
    """A job with a GPU a worker."""
    return QueuedJob(
        job_id=name,
        owner=owner,
        num_workers_min=workers if least is None else least,
        num_workers_max=workers,
        **{"gpus_per_worker": 1.0, **fields},  # type: ignore[arg-type]
    )


def started(snapshot: Snapshot) -> dict[str, int]:
    """Job to the workers that it starts with."""
    actions = decide(snapshot, 0.0)
    return {a.job_id: sum(a.placement.values()) for a in actions if isinstance(a, Start)}


def test_jobs_beyond_the_limit_wait_and_others_pass() -> None:
    """A hundred jobs of one must not keep all others out."""
    queue = [job(f"a{n}", "alice", 2) for n in range(4)] + [job("b", "bob", 6)]
    snapshot = within_limits(Snapshot(queue=queue, nodes=[NODE]), {"alice": 5})
    assert started(snapshot) == {"a0": 2, "a1": 2, "b": 6}
    told = explain(snapshot, "a2", 0.0)
    assert "jobs of alice may hold 5 GPUs, 1 are left, and it needs 2" in told.reason


def test_what_runs_counts_also_while_it_stops() -> None:
    """Its GPUs are free once its processes are gone, not before."""
    running = RunningJob(
        job_id="r",
        owner="alice",
        placement={"n": 4},
        started_at=0,
        gpus_per_worker=1.0,
        num_workers_max=4,
        stopping=True,
    )
    snapshot = Snapshot(queue=[job("a", "alice", 2)], running=[running], nodes=[NODE])
    assert started(within_limits(snapshot, {"alice": 5})) == {}
    assert started(within_limits(snapshot, {"alice": 6})) == {"a": 2}


def test_a_fleet_takes_what_its_submitter_has_left() -> None:
    """It need not wait for the whole of what it would take."""
    fleet = job("f", "alice", 8, least=1)
    assert started(within_limits(Snapshot(queue=[fleet], nodes=[NODE]), {ANYBODY: 3})) == {"f": 3}


def test_who_has_a_limit_of_his_own_is_not_anybody() -> None:
    """One team member may be allowed more."""
    queue = [job("a", "alice", 4), job("b", "bob", 4), job("c", "", 4)]
    limits = {ANYBODY: 2.0, "alice": 8.0}
    assert started(within_limits(Snapshot(queue=queue, nodes=[NODE]), limits)) == {"a": 4}


def test_jobs_without_gpus_have_no_limit() -> None:
    """A limit on GPUs says nothing of CPUs."""
    cpu = job("c", "alice", 4, gpus_per_worker=0.0)
    assert started(within_limits(Snapshot(queue=[cpu], nodes=[NODE]), {"alice": 0})) == {"c": 4}


def test_a_large_job_holds_up_no_small_one_of_the_same_submitter() -> None:
    """It may wait for weeks."""
    queue = [job("large", "alice", 8), job("small", "alice", 1)]
    snapshot = within_limits(Snapshot(queue=queue, nodes=[NODE]), {"alice": 4})
    assert started(snapshot) == {"small": 1}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.integers(0, 100)), max_size=8),
    st.integers(0, 10),
)
def test_nobody_ever_starts_with_more_than_his_limit(
    asked: list[tuple[str, int, int]], limit: int
) -> None:
    """Whatever the order, and however often it is decided."""
    queue = [
        job(f"j{n}", owner, size, least=1 + size // 2, priority=priority)
        for n, (owner, size, priority) in enumerate(asked)
    ]
    owners = {one.job_id: one.owner for one in queue}
    held = dict.fromkeys("ab", 0)
    snapshot = Snapshot(queue=queue, nodes=[NODE])
    for _ in range(2):
        seen = within_limits(snapshot, {ANYBODY: limit})
        actions = decide(seen, 0.0)
        for name, workers in started(seen).items():
            held[owners[name]] += workers
        snapshot = seen.after(actions, 0.0)
    assert max(held.values()) <= limit
