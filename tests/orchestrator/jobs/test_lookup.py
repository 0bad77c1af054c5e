"""What people type for a job, and which one is meant."""

import pytest

from orchestrator.client.status import request
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.lookup import exact_job_id, find_job_id, live_job_id
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.group import Child, GroupJob
from tests.support.fakes import MemoryStore
from tests.support.world import World, train_job

LONG = "cifar10-cosine-bf16-with-a-name-that-fills-a-line"


def store_with(*jobs: tuple[str, str | None]) -> tuple[MemoryStore, list[str]]:
    """Return a store with jobs of these names and ids, and their ids."""
    store = MemoryStore()
    return store, [submit_job(store, train_job(name), job_id).job_id for name, job_id in jobs]


def test_the_beginning_of_one_id_alone_names_its_job() -> None:
    """Nobody types a time and four letters."""
    store, (digits, other) = store_with(("digits", None), ("other", "mine-7"))
    assert find_job_id(store, digits[:10]) == digits
    assert find_job_id(store, "mine") == other
    with pytest.raises(JobNotFoundError):
        exact_job_id(store, "mine")  # what a job file names is not guessed


def test_a_step_that_has_not_begun_is_told_from_a_job_that_is_not() -> None:
    """`status` of a pipeline shows its id before there is such a job."""
    world = World()
    steps = tuple(Child(step=step, spec=train_job(f"pipe-{step}", workers=64)) for step in "ab")
    group = GroupJob(kind="pipeline", name="pipe", children=steps)
    for group_id, child in ((None, "pipe-b"), ("mine", "mine-b")):
        made = submit_job(world.store, group, group_id).job_id
        told = f"{child} is a step of {made} that has not begun"
        with pytest.raises(JobNotFoundError, match=told):
            find_job_id(world.store, child)
        with pytest.raises(JobNotFoundError, match="no job is called 'pipe-c'"):
            find_job_id(world.store, "pipe-c")
        request(world.store, made, Verb.CANCEL, 0)
        world.step(2)
        with pytest.raises(JobNotFoundError, match="no job is called"):
            find_job_id(world.store, child)


def test_the_beginning_of_several_ids_is_refused_with_their_names() -> None:
    """The wrong one might be cancelled."""
    store, _ = store_with(("a", "run-1"), ("a", "run-2"))
    with pytest.raises(BadInputError, match="run is the beginning of 2 jobs: run-1, run-2"):
        find_job_id(store, "run")
    with pytest.raises(JobNotFoundError):
        find_job_id(store, "nothing")


def test_a_name_wins_over_the_beginning_of_an_id() -> None:
    """What worked before means the same."""
    store, (_, named) = store_with(("a", "digits-2"), ("digits", "x"))
    assert find_job_id(store, "digits-2") == "digits-2"
    made = submit_job(store, train_job("digits")).job_id
    assert find_job_id(store, "digits") == made
    assert find_job_id(store, "x") == named


def test_a_long_name_finds_its_job_though_its_id_is_shortened() -> None:
    """Ids have 63 characters at most, and a time."""
    store, (job_id,) = store_with((LONG, None))
    assert len(job_id) <= 63
    assert find_job_id(store, LONG) == job_id


def test_last_is_what_was_submitted_last() -> None:
    """By a user: neither a smoke test nor a job of a group."""
    store, (_, second) = store_with(("b", None), ("a", "zz"))
    submit_job(store, train_job("a-smoke"), "zz-smoke")
    assert find_job_id(store, "@last") == second
    with pytest.raises(JobNotFoundError):
        find_job_id(MemoryStore(), "@last")


def test_whoever_ends_a_job_by_its_name_means_the_live_one() -> None:
    """`cancel dup` said "its processes are gone" of the newest, which had ended; another ran on."""
    store, (older, newer) = store_with(("dup", "one"), ("dup", "two"))
    with pytest.raises(BadInputError, match="2 live jobs are named dup; name one: one, two"):
        live_job_id(store, "dup")
    records = RecordStore(store)
    current = records.read(newer)
    records.move(current, current.record.moved_to(JobState.CANCELLED, at=store.now()))
    store.delete(Mark.QUEUE.key(newer))
    assert live_job_id(store, "dup") == older
    assert live_job_id(store, newer) == newer
