"""`delete` removes a whole job and nothing that is needed; `gc` what crashes left behind."""

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import describe_file
from orchestrator.artifacts.checkpoints.references import hold_model
from orchestrator.client.deletion import delete_job, find_deletable
from orchestrator.client.garbage import collect_garbage
from orchestrator.client.references import references_to
from orchestrator.client.status import job_status, list_jobs, request
from orchestrator.client.submit import submit_job
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.controller.requests import handle_request
from orchestrator.errors import (
    BadInputError,
    JobNotFoundError,
    OrchestratorError,
    StoreUnavailableError,
    TrackingError,
)
from orchestrator.jobs.inbox import Request, Verb, post_request, read_requests
from orchestrator.jobs.index import INDEX, Index
from orchestrator.jobs.index_entry import index_entry
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RECORD, RecordStore
from orchestrator.lifecycle.state import AttemptRecord, JobState
from orchestrator.specs.group import Child, GroupJob
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import OpenUpload
from tests.orchestrator.controller.test_smoke_gate import spec
from tests.support.cluster import FakeCluster
from tests.support.fakes import FaultyStore, MemoryStore
from tests.support.models import model_of
from tests.support.records import record_of
from tests.support.world import World, train_job


def put_job(store: MemoryStore, folder: Path, job_id: str, state: JobState) -> JobPaths:
    """Write a training with one attempt, a checkpoint at step 5, and data that no commit names."""
    submit_job(store, spec(), job_id)
    job, now = JobPaths(job_id), store.now()
    ended_at = now if state.has_ended else None
    record = record_of(
        job_id,
        at=now,
        name="a",
        state=state,
        attempt=1,
        attempts=(AttemptRecord(number=1, started_at=now, ended_at=ended_at, progress=5),),
    )
    store.put(job.record, RECORD.encode(record))
    if state.has_ended:
        store.delete(Mark.QUEUE.key(job_id))
        store.delete(Mark.TRACKING.key(job_id))
    files = folder / job_id
    files.mkdir()
    (files / "model.safetensors").write_bytes(b"weights")
    CheckpointStore(store, job).commit(5, files, 1, {})
    store.put(
        f"{job.attempt(1).data('step-000000007-lost')}model.safetensors", b"half a checkpoint"
    )
    return job


def set_of(store: MemoryStore, name: str, model: str) -> str:
    """Submit a sample set that draws from a job."""
    sample = SampleJob(kind="sample", name=name, model=ModelRef(job=model), num_samples=4)
    return submit_job(store, sample).job_id


def keys_of(store: MemoryStore, job_id: str) -> list[str]:
    """Return what is left of a job."""
    return [key for key in store.objects if f"/{job_id}/" in key or key.endswith(f"/{job_id}")]


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """A store with an ended job `old` and a running one, `busy`."""
    store = MemoryStore()
    put_job(store, tmp_path, "old", JobState.SUCCEEDED)
    put_job(store, tmp_path, "busy", JobState.RUNNING)
    return store


def test_a_deleted_job_is_gone_with_all_that_it_wrote(store: MemoryStore) -> None:
    """And nothing of another one is."""
    kept = keys_of(store, "busy")
    removed = delete_job(store, *find_deletable(store, "old"))
    assert keys_of(store, "old") == []
    assert removed.objects == 5  # spec, record, commit, and the data of two saves
    assert removed.size_bytes > len(b"weights") + len(b"half a checkpoint")
    assert keys_of(store, "busy") == kept
    with pytest.raises(JobNotFoundError):
        job_status(store, "old")


def test_a_deleted_set_lets_go_of_the_checkpoint_that_was_kept_for_it(store: MemoryStore) -> None:
    """The training's retention may take it then."""
    sample = set_of(store, "set", "old")
    model = model_of("old", 5)
    assert hold_model(store, model, sample)
    mark = JobPaths("old").reference(5, sample)
    assert store.exists(mark)
    record = replace(RecordStore(store).read(sample).record, model=model)
    ended = replace(record, state=JobState.CANCELLED)
    store.put(JobPaths(sample).record, RECORD.encode(ended))
    delete_job(store, sample)
    assert not store.exists(mark)


def test_only_ended_jobs_can_be_deleted(store: MemoryStore) -> None:
    """A running one still writes."""
    with pytest.raises(OrchestratorError, match=r"RUNNING.*cancel busy"):
        find_deletable(store, "busy")


def test_what_a_sample_set_draws_from_stays_and_the_set_is_named(store: MemoryStore) -> None:
    """Resolved or not yet, by id or by name: its images could not be proven or mended any more."""
    sample = set_of(store, "set", "old")
    with pytest.raises(OrchestratorError, match=f"the sample set {sample} refers to job old"):
        find_deletable(store, "old")
    records = RecordStore(store)
    record = records.read(sample).record
    resolved = replace(record, model=model_of("old"))
    store.put(JobPaths(sample).record, RECORD.encode(resolved))
    assert references_to(store, ["old"]) == [f"the sample set {sample}"]
    assert references_to(store, ["busy"]) == []


def test_what_a_training_starts_from_stays(store: MemoryStore) -> None:
    """It may not have begun yet; and later its line of descent is told by that job."""
    further = spec().model_copy(update={"name": "further", "init": ModelRef(job="old")})
    submit_job(store, further, "further")
    assert references_to(store, ["old"]) == ["the training further"]


def test_a_reference_that_means_nothing_holds_nothing(store: MemoryStore) -> None:
    """A sample job of `model: {job: T1}` blocked the deletion of every training."""
    odd = SampleJob(kind="sample", name="odd", model=ModelRef(job="other"), num_samples=1)
    body = json.loads(odd.model_dump_json())
    submit_job(store, odd, "odd")
    body["model"]["job"] = "T1"
    store.put(JobPaths("odd").spec, json.dumps(body).encode())
    assert references_to(store, ["old"], lambda job: []) == []


def test_what_is_registered_stays_and_mlflow_must_say_that_nothing_is(store: MemoryStore) -> None:
    """An MLflow that does not answer is no leave to delete."""
    store.put(JobPaths("old").tracking_cursor, json.dumps({"run_id": "r"}).encode())

    def down(job_id: str) -> list[str]:
        raise TrackingError("MLflow does not answer")

    assert references_to(store, ["old"], lambda job_id: ["digits/3"]) == [
        "the registered model digits/3"
    ]
    with pytest.raises(TrackingError):
        references_to(store, ["old"], down)
    assert references_to(store, ["busy"], down) == []  # MLflow was never told of it


def test_a_job_stays_while_its_group_moves_it_and_a_group_while_it_has_jobs(
    store: MemoryStore,
) -> None:
    """The group would make the job again, or could never be shown again."""
    records = RecordStore(store)
    of_group: dict[str, Any] = {"parent": "busy"}
    for job_id, changes in (("old", of_group), ("busy", {"kind": "pipeline"})):
        record = records.read(job_id).record
        store.put(JobPaths(job_id).record, RECORD.encode(replace(record, **changes)))
    assert references_to(store, ["old"]) == ["the pipeline busy"]
    assert references_to(store, ["busy"]) == ["the train old"]
    assert references_to(store, ["old", "busy"]) == []


def test_what_a_group_has_not_created_yet_holds_what_it_would_read(store: MemoryStore) -> None:
    """Its step waited for another, the model went, and the step failed hours later."""
    first, second = (
        SampleJob(kind="sample", name=name, model=ModelRef(job=model), num_samples=4)
        for name, model in (("p-one", "busy"), ("p-two", "old"))
    )
    steps = (Child(step="one", spec=first), Child(step="two", needs=("one",), spec=second))
    group = GroupJob(kind="pipeline", name="p", children=steps)
    group_id = submit_job(store, group).job_id
    with pytest.raises(OrchestratorError, match=f"the pipeline {group_id} refers to job old"):
        find_deletable(store, "old")
    records = RecordStore(store)
    record = replace(records.read(group_id).record, state=JobState.SUCCEEDED)
    store.put(JobPaths(group_id).record, RECORD.encode(record))
    assert references_to(store, ["old"]) == []  # that step was there, and somebody deleted it


@pytest.mark.parametrize("name", ["a", "old"])
def test_a_queued_job_holds_a_model_given_by_name(store: MemoryStore, name: str) -> None:
    """It was found nowhere but in what was asked: the orchestrator has not seen the job yet."""
    known = index_entry(RecordStore(store).read("old").record)
    store.put(keys.INDEX, INDEX.encode(Index(ended=(known,))))
    sample = set_of(store, "set", name)
    with pytest.raises(OrchestratorError, match=f"the sample set {sample} refers to job old"):
        find_deletable(store, "old")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(1, 16))
def test_a_deletion_that_died_goes_on_when_it_is_asked_for_again(
    store: MemoryStore, fail_at: int, after: bool
) -> None:
    """Wherever it died: the record is the last to go."""
    faulty = FaultyStore(store, fail_at=fail_at, after=after, dead=True)
    try:
        delete_job(faulty, "old")
    except StoreUnavailableError:
        if store.exists(JobPaths("old").record):
            assert find_deletable(store, "old", lambda store, job_ids: []) == ["old"]
            delete_job(store, "old")
    assert keys_of(store, "old") == []


def test_a_job_that_is_being_deleted_cannot_be_retried(store: MemoryStore) -> None:
    """Half of it is gone already."""
    faulty = FaultyStore(store, fail_at=4, dead=True)
    with pytest.raises(StoreUnavailableError):
        delete_job(faulty, "old")
    records = RecordStore(store)
    key = request(store, "old", Verb.REPAIR)
    (asked,) = [r for r in read_requests(store) if r.key == key]
    current = handle_request(records, records.read("old"), asked, store.now())
    assert current.record.state is JobState.SUCCEEDED


def test_a_deleted_job_is_listed_no_more(store: MemoryStore) -> None:
    """At once, though the orchestrator alone writes the index; and after it has, too."""
    lease = Lease(store, "test", term_s=1e9)
    assert lease.acquire()
    controller = Controller(store, FakeCluster(cpus=0), lease)
    controller.take_over()
    controller.step()
    assert {job.job_id for job in list_jobs(store)} == {"old", "busy"}
    delete_job(store, "old")
    assert {job.job_id for job in list_jobs(store)} == {"busy"}
    controller.step()
    assert not list(store.list_objects(keys.INBOX))
    for everything in (False, True):
        assert {job.job_id for job in list_jobs(store, everything=everything)} == {"busy"}


def test_garbage_is_data_of_ended_attempts_that_no_commit_names(
    store: MemoryStore, tmp_path: Path
) -> None:
    """What a killed worker had uploaded goes; what is committed or still being written stays."""
    before = set(store.objects)
    looked = collect_garbage(store, dry_run=True)
    assert set(store.objects) == before
    garbage = collect_garbage(store)
    assert looked == garbage
    assert (garbage.data.objects, garbage.data.size_bytes) == (1, len(b"half a checkpoint"))
    assert before - set(store.objects) == {
        "jobs/old/attempts/1/data/step-000000007-lost/model.safetensors"
    }
    whole = CheckpointStore(store, JobPaths("old")).newest_whole(tmp_path / "cache", print)
    assert whole is not None
    assert describe_file(whole.folder / "model.safetensors").size_bytes == len(b"weights")


def test_garbage_is_not_looked_for_where_a_commit_cannot_be_read(store: MemoryStore) -> None:
    """A commit of a later version may name anything."""
    store.put(JobPaths("old").checkpoint(9), b'{"format_version": 99}')
    garbage = collect_garbage(store)
    assert garbage.data.objects == 0
    assert "step-000000009" in garbage.skipped["old"]


def test_garbage_is_not_looked_for_where_a_record_cannot_be_read(store: MemoryStore) -> None:
    """Nobody knows which attempts have ended, and other jobs' garbage goes all the same."""
    store.put(JobPaths("odd").record, b"{")
    garbage = collect_garbage(store)
    assert "record jobs/odd/record.json cannot be read" in garbage.skipped["odd"]
    assert garbage.data.objects == 1


def test_garbage_is_an_old_upload_and_an_old_mark_without_a_job(store: MemoryStore) -> None:
    """Young ones belong to somebody who is at work."""
    store.put(Mark.QUEUE.key("ghost"), b"{}")
    assert collect_garbage(store).marks.objects == 0
    store.advance(3600)
    store.put(Mark.QUEUE.key("newcomer"), b"{}")
    for hours, name in ((30, "old"), (1, "young")):
        upload = OpenUpload(f"jobs/{name}/x", name, 100)
        store.uploads[upload] = store.now() - timedelta(hours=hours)
    garbage = collect_garbage(store)
    assert (garbage.marks.objects, garbage.uploads.objects, garbage.uploads.size_bytes) == (
        1,
        1,
        100,
    )
    assert [upload.upload_id for upload in store.uploads] == ["young"]
    assert store.exists(Mark.QUEUE.key("newcomer"))
    assert store.exists(Mark.QUEUE.key("busy"))


def test_garbage_is_what_an_interrupted_deletion_left(store: MemoryStore) -> None:
    """Nobody has to remember which one it was."""
    faulty = FaultyStore(store, fail_at=9, dead=True)
    with pytest.raises(StoreUnavailableError):
        delete_job(faulty, "old")
    left = len([key for key in keys_of(store, "old") if key.startswith("jobs/")])
    assert collect_garbage(store, dry_run=True).jobs.objects == left > 0
    assert collect_garbage(store).jobs.objects == left
    assert keys_of(store, "old") == []


def test_a_deleted_job_is_listed_no_more_though_the_orchestrator_died(store: MemoryStore) -> None:
    """It had dropped the request before it wrote the index without the job: listed for ever."""
    cluster = FakeCluster()
    _orchestrator(store, cluster).step()
    delete_job(store, "old")
    for fail_at in itertools.count(1):
        faulty = FaultyStore(store, fail_at, dead=True)
        with suppress(StoreUnavailableError):
            _orchestrator(faulty, cluster).step()
        if not list(store.list_objects(keys.INBOX)):
            break
    _orchestrator(store, cluster).step()
    assert "old" not in {job.job_id for job in list_jobs(store)}


def test_a_deleted_job_that_was_not_let_go_of_is_listed_no_more(store: MemoryStore) -> None:
    """Its mark in the queue could not be dropped, so the loop held it, and listed it again."""

    class Sticky(MemoryStore):
        def delete(self, key: str) -> None:
            if key == Mark.QUEUE.key("old") and self.refuses:
                raise StoreUnavailableError("this one")
            super().delete(key)

        refuses = True

    sticky = Sticky()
    sticky.objects = store.objects
    sticky.put(Mark.QUEUE.key("old"), b"{}")
    controller = _orchestrator(sticky, FakeCluster())
    controller.step()
    sticky.refuses = False
    delete_job(sticky, "old")
    sticky.put(Mark.QUEUE.key("old"), b"{}")  # a mark that came last brings nothing back
    for _ in range(3):
        controller.step()
        assert "old" not in {job.job_id for job in list_jobs(sticky)}


def _orchestrator(store: MemoryStore | FaultyStore, cluster: FakeCluster) -> Controller:
    """Return an orchestrator that has just taken over."""
    store.delete(keys.LEASE)
    lease = Lease(store, "test", term_s=1e9)
    assert lease.acquire()
    controller = Controller(store, cluster, lease)
    controller.take_over()
    return controller


def test_a_late_deletion_forgets_no_job_that_was_made_anew() -> None:
    """Ids may be given: what was deleted may be there again before the orchestrator heard of it."""
    world = World()
    submit_job(world.store, train_job(), "t")
    world.step()
    world.begin("t")
    told = Request(job_id="t", verb=Verb.DELETE, attempt=1, at=world.store.now())
    post_request(world.store, told)
    world.step()
    assert [(job.job_id, job.state) for job in list_jobs(world.store)] == [("t", "RUNNING")]
    running = world.controller.snapshot(world.cluster.nodes()).running
    assert [job.job_id for job in running] == ["t"]
    assert list(world.store.list_objects(keys.INBOX)) == []


def unread(store: MemoryStore, job_id: str) -> None:
    """Make a job's spec one that only a newer version reads."""
    body = json.loads(store.get(JobPaths(job_id).spec).body)
    store.put(JobPaths(job_id).spec, json.dumps({**body, "format_version": 99}).encode())


def test_a_job_that_cannot_be_read_keeps_only_what_it_names(store: MemoryStore) -> None:
    """One of them, of whatever kind, kept every job from being deleted, and nobody could end it."""
    sample = set_of(store, "set", "old")
    group = GroupJob(
        kind="pipeline",
        name="p",
        children=(
            Child(
                step="one",
                spec=SampleJob(
                    kind="sample", name="p-one", model=ModelRef(job="old"), num_samples=4
                ),
            ),
        ),
    )
    group_id = submit_job(store, group).job_id
    hidden = set_of(store, "hidden", "old")  # before the orchestrator wrote its record
    for job_id in (sample, group_id):
        store.put(JobPaths(job_id).record, RECORD.encode(RecordStore(store).read(job_id).record))
    for job_id in (sample, group_id, hidden):
        unread(store, job_id)
    assert references_to(store, ["busy"]) == []
    refusal = (
        rf"the sample set {sample} \(which cannot be read, but names it\), "
        rf"the job {hidden} \(which .*\), the pipeline {group_id} \(which .* names it\) "
        "refer to job old; delete that first"
    )
    with pytest.raises(OrchestratorError, match=refusal):
        find_deletable(store, "old")


@pytest.mark.parametrize("damage", [unread, lambda s, j: s.put(JobPaths(j).spec, b"{torn")])
def test_a_job_that_cannot_be_read_can_be_deleted(
    store: MemoryStore, damage: Callable[[MemoryStore, str], None]
) -> None:
    """It is the way out for whatever it may refer to; its jobs go with it, as they name it."""
    sample = set_of(store, "set", "busy")
    record = RecordStore(store).read(sample).record
    ended = replace(record, state=JobState.CANCELLED, parent="old")
    store.put(JobPaths(sample).record, RECORD.encode(ended))
    damage(store, "old")
    ids = find_deletable(store, "old")
    assert ids == ["old", sample]
    delete_job(store, "old")
    assert keys_of(store, "old") == keys_of(store, sample) == []


def test_a_job_that_was_torn_before_anybody_saw_it_can_be_deleted() -> None:
    """It can never begin, so it cannot be ended first; one of a newer version may begin."""
    world = World()
    for job_id in ("torn", "newer"):
        submit_job(world.store, train_job(), job_id)
    world.store.put(JobPaths("torn").spec, b"{torn")
    unread(world.store, "newer")
    world.step(2)
    assert find_deletable(world.store, "torn") == ["torn"]
    delete_job(world.store, "torn")
    world.step(2)
    assert keys_of(world.store, "torn") == []
    with pytest.raises(BadInputError, match="a newer version wrote it"):
        find_deletable(world.store, "newer")


@pytest.mark.parametrize("torn", [b"{torn", b'{"format_version": 99}'])
def test_a_job_whose_record_cannot_be_read_goes_where_a_user_insists(
    store: MemoryStore, torn: bytes
) -> None:
    """Nobody can say whether it has ended: it has to be silent, as no job at work is."""
    record = JobPaths("old").record
    store.put(record, torn)
    with pytest.raises(BadInputError, match="`ddpmctl delete --force old` removes it all the same"):
        find_deletable(store, "old")
    with pytest.raises(BadInputError, match="was written 0 s ago, so it may be at work"):
        find_deletable(store, "old", force=True)
    store.advance(121)
    assert find_deletable(store, "old", force=True) == ["old"]
    assert store.get(record).body == torn
    with suppress(StoreUnavailableError):  # it dies in the middle, and is called again
        delete_job(FaultyStore(store, fail_at=12, dead=True), "old", force=True)
    assert keys_of(store, "old")
    assert find_deletable(store, "old") == ["old"]
    delete_job(store, "old")
    assert keys_of(store, "old") == []
