"""Thousands of jobs: what a loop, a list and the threads beside the loop ask of the store."""

import json
from contextlib import nullcontext
from datetime import datetime
from typing import Any

import pytest

from ddpm.config import TrainingConfig
from orchestrator.client.status import list_jobs
from orchestrator.client.submit import submit_job
from orchestrator.controller.adoption import AT_ONCE, Adopter
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import ADOPTED_A_LOOP, Controller
from orchestrator.controller.notifications import WHAT, notify_all
from orchestrator.errors import StoreUnavailableError
from orchestrator.jobs.index import MIN_ENDED, PAGE_ENTRIES, JobIndex, read_pages
from orchestrator.jobs.index_entry import IndexEntry, index_entry
from orchestrator.jobs.records import RECORD, RecordStore
from orchestrator.jobs.troubles import Troubles
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.sections import DatasetSpec, NotifySpec
from orchestrator.specs.train import TrainJob
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.carrier import TrackingCarrier
from orchestrator.tracking.loop import carry_all, tracking_troubles
from tests.support.cluster import FakeCluster
from tests.support.fakes import FaultyStore, MemoryStore, MemoryTracking
from tests.support.records import record_of


def spec() -> TrainJob:
    """Return a small job that wants its end to be posted."""
    return TrainJob(
        kind="train",
        name="a",
        dataset=DatasetSpec(source="digits"),
        training=TrainingConfig(num_steps=10),
        notify=NotifySpec(url_env="HOOK"),
    )


def controller_of(store: Any) -> Controller:
    """Return an orchestrator on a cluster without any room."""
    lease = Lease(store, "test", term_s=1e9)
    assert lease.acquire()
    controller = Controller(store, FakeCluster(cpus=0), lease)
    controller.take_over()
    return controller


def queue_up(store: Any, num_jobs: int) -> None:
    """Submit jobs."""
    for number in range(num_jobs):
        submit_job(store, spec(), f"job-{number:04d}")


def calls_of_a_loop(num_jobs: int) -> int:
    """Return what one loop at rest asks of the store."""
    store = FaultyStore(MemoryStore(), fail_at=0)
    queue_up(store, num_jobs)
    controller = controller_of(store)
    controller.step()
    before = store.num_calls
    controller.step()
    return store.num_calls - before


def test_a_job_that_waits_costs_a_loop_nothing() -> None:
    """A request for each of 1,000 queued jobs would be all that a loop does."""
    assert calls_of_a_loop(60) == calls_of_a_loop(2)


class CountedStore(FaultyStore):
    """Counts what is asked of a server; its clock is known here."""

    def now(self) -> datetime:
        """Return the time without a request."""
        return self.inner.now()


def test_jobs_that_wait_cost_the_threads_beside_the_loop_nothing() -> None:
    """MLflow and the post have nothing to hear of them; one look at the index says so."""
    store = CountedStore(MemoryStore(), fail_at=0)
    queue_up(store, 30)
    controller_of(store).step()
    carrier = TrackingCarrier(store, MemoryTracking())
    of_tracking, of_posts = tracking_troubles(store, carrier), Troubles(store, WHAT)
    for _ in range(2):  # the first one looks which troubles there are, as one does each minute
        store.num_calls = 0
        carry_all(store, carrier, of_tracking)
        notify_all(store, of_posts)
    assert store.num_calls == 4  # for each of the two, the index and the marks


def test_a_burst_of_jobs_is_taken_in_over_several_loops() -> None:
    """Each loop stays short, and none of the jobs is forgotten."""
    store = MemoryStore()
    controller = controller_of(store)
    num_jobs = ADOPTED_A_LOOP + 10
    queue_up(store, num_jobs)
    controller.step()
    assert len(list_records(store)) == ADOPTED_A_LOOP
    controller.step()
    assert len(list_records(store)) == num_jobs
    assert len(list_jobs(store)) == num_jobs


def list_records(store: MemoryStore) -> list[str]:
    """Return the keys of the records that were written."""
    return [key for key in store.objects if key.endswith("/record.json")]


def test_a_job_that_cannot_be_read_is_read_once_and_holds_up_no_other() -> None:
    """A version that does not know a kind of job meets it in every loop."""
    store = FaultyStore(MemoryStore(), fail_at=0)
    for number in range(AT_ONCE + 1):
        store.put(JobPaths(f"odd-{number}").spec, b'{"kind": "dance"}')
    ids = [f"odd-{number}" for number in range(AT_ONCE + 1)]
    adopter = Adopter(RecordStore(store), Troubles(store, "adoption"))
    assert list(adopter.adopt(ids)) == []
    submit_job(store, spec(), "fine")
    before = store.num_calls
    assert [job.record.job_id for job in adopter.adopt([*ids, "fine"], at_most=1)] == ["fine"]
    assert store.num_calls - before < 10


def ended_entry(store: MemoryStore, number: int) -> IndexEntry:
    """Write an ended job and return its entry."""
    job_id, now = f"job-{number:05d}", store.now()
    record = record_of(job_id, at=now, name="a", state=JobState.SUCCEEDED)
    store.put(JobPaths(job_id).spec, b"{}")
    store.put(JobPaths(job_id).record, RECORD.encode(record))
    return index_entry(record)


def ended_index(store: MemoryStore, num_jobs: int) -> JobIndex:
    """Return an index whose jobs ended one after the other."""
    index = JobIndex(store)
    index.load([])
    for number in range(num_jobs):
        store.advance(1)
        index.end(ended_entry(store, number))
    return index


NUM_ENDED = MIN_ENDED + 2 * PAGE_ENTRIES + 7


@pytest.fixture
def full() -> MemoryStore:
    """A store with more ended jobs than the index holds."""
    store = MemoryStore()
    ended_index(store, NUM_ENDED).write([], store.now())
    return store


def test_the_index_keeps_the_newest_and_pages_keep_the_rest(full: MemoryStore) -> None:
    """`list` reads one object of bounded size; `list --all` finds every job."""
    newest = list_jobs(full)
    assert MIN_ENDED <= len(newest) < MIN_ENDED + PAGE_ENTRIES
    assert newest[0].job_id == f"job-{NUM_ENDED - 1:05d}"
    everything = [job.job_id for job in list_jobs(full, everything=True)]
    assert everything == [f"job-{number:05d}" for number in reversed(range(NUM_ENDED))]


def test_listing_everything_reads_no_job_by_itself(full: MemoryStore) -> None:
    """5,000 records read one by one took minutes."""
    counted = FaultyStore(full, fail_at=0)
    list_jobs(counted, everything=True)
    assert counted.num_calls < 12


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(1, 5))
def test_a_writer_that_dies_between_page_and_index_doubles_nothing(
    fail_at: int, after: bool
) -> None:
    """The next one writes the same page again, under the same number."""
    store = MemoryStore()
    ended_index(store, NUM_ENDED).write([], store.now())
    newer = [ended_entry(store, NUM_ENDED + number) for number in range(PAGE_ENTRIES)]
    faulty = FaultyStore(store, fail_at=0, after=after, dead=True)
    for place in (faulty, store):
        writer = JobIndex(place)
        writer.load([])
        for entry in newer:
            writer.end(entry)
        faulty.num_calls, faulty.fail_at = 0, fail_at
        with pytest.raises(StoreUnavailableError) if place is faulty else nullcontext():
            writer.write([], store.now())
    held = [entry["job_id"] for entry in json.loads(store.get(keys.INDEX).body)["ended"]]
    assert not read_pages(store).keys() & set(held)
    assert len(read_pages(store)) + len(held) == NUM_ENDED + PAGE_ENTRIES


def test_a_retried_job_is_live_whatever_an_old_page_says(full: MemoryStore) -> None:
    """Pages are never changed, so newer word must win."""
    index = JobIndex(full)
    index.load([])
    index.drop("job-00003")
    (old,) = [job for job in list_jobs(full, everything=True) if job.job_id == "job-00003"]
    live = IndexEntry(
        job_id=old.job_id,
        kind=old.kind,
        name=old.name,
        state=JobState.QUEUED,
        submitted_at=full.now(),
        changed_at=full.now(),
    )
    index.write([live], full.now())
    (shown,) = [job for job in list_jobs(full, everything=True) if job.job_id == "job-00003"]
    assert shown.state == "QUEUED"


def test_a_deleted_job_is_listed_no_more_wherever_it_stood(full: MemoryStore) -> None:
    """Some stores still list a folder whose objects are gone."""
    index = JobIndex(full)
    index.load([])
    gone = [f"job-{number:05d}" for number in (4, NUM_ENDED - 1)]
    for job in map(JobPaths, gone):
        index.forget(job.job_id)
        full.delete(job.spec)
        full.delete(job.record)
        full.put(f"{job.folder}still-listed", b"")
    index.write([], full.now())
    listed = {job.job_id for job in list_jobs(full, everything=True)}
    assert len(listed) == NUM_ENDED - 2
    assert not listed & {*gone}


def test_a_lost_index_is_made_again_from_the_jobs_and_the_pages(full: MemoryStore) -> None:
    """The index is only a copy."""
    full.delete(keys.INDEX)
    index = JobIndex(full)
    index.load([])
    index.write([], full.now())
    assert len(list_jobs(full, everything=True)) == NUM_ENDED


def test_a_job_of_a_kind_that_only_a_newer_version_knows_holds_up_no_other(
    full: MemoryStore,
) -> None:
    """An orchestrator that stumbled over it at each start would move no job at all."""
    full.put(JobPaths("job-of-tomorrow").spec, b'{"kind": "dream"}')
    full.delete(keys.INDEX)
    index = JobIndex(full)
    index.load([])
    index.write([], full.now())
    assert len(list_jobs(full, everything=True)) == NUM_ENDED
