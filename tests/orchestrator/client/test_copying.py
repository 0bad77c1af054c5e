"""A copy of a store is the store: byte for byte, whole or not there, and its jobs go on."""

import json
import tarfile
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.cli import store as store_verb
from orchestrator.client import copying
from orchestrator.client.copying import copy_store
from orchestrator.client.status import list_jobs, request
from orchestrator.client.submit import submit_job
from orchestrator.errors import OrchestratorError, StoreUnavailableError
from orchestrator.jobs.inbox import Verb
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from tests.support.fakes import FaultyStore, MemoryStore
from tests.support.verbs import Verbs
from tests.support.world import World, train_job

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "store-0.1"


class Elsewhere(MemoryStore):
    """Another store."""

    uri = "memory://elsewhere"
    address = "elsewhere memory://elsewhere"


@pytest.fixture
def old() -> MemoryStore:
    """A real store with all kinds of jobs, none of which lives."""
    store = MemoryStore()
    facts = json.loads((FIXTURE / "facts.json").read_text("utf-8"))
    store.clock = datetime.fromisoformat(facts["exported_at"])
    with tarfile.open(FIXTURE / "store.tar.gz") as archive:
        for member in archive:
            body = archive.extractfile(member)
            assert body is not None
            store.put(member.name, body.read())
    for marks in (keys.QUEUE, keys.INBOX):
        for info in list(store.list_objects(marks)):
            store.delete(info.key)
    return store


def bodies(store: MemoryStore) -> dict[str, bytes]:
    """What has to be the same."""
    apart = (keys.LEASE, keys.SNAPSHOT, keys.NODES, keys.PROOFS, keys.COPIED_FROM)
    return {k: v.body for k, v in store.objects.items() if not k.startswith(apart)}


def copied_by_half(store: MemoryStore, calls: int) -> Elsewhere:
    """A copy that was broken off after some calls to the target."""
    target = Elsewhere()
    target.clock = store.clock
    failing = FaultyStore(target, calls, dead=True)
    failing.address, failing.uri = target.address, target.uri  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailableError):
        copy_store(store, failing)
    return target


def test_a_copy_holds_the_same_bytes_and_its_sets_are_proven(old: MemoryStore) -> None:
    """What is not proven is no back-up."""
    target = Elsewhere()
    copied = copy_store(old, target)
    assert bodies(target) == bodies(old)
    assert copied.objects == copied.copied == len(bodies(old))
    assert copied.size_bytes == sum(map(len, bodies(old).values()))
    assert [job.job_id for job in list_jobs(target)] == [job.job_id for job in list_jobs(old)]
    sets = [j.job_id for j in list_jobs(old) if j.kind == "sample" and j.state == "SUCCEEDED"]
    assert sets
    assert all(verify_samples(target, job_id).is_whole for job_id in sets)
    assert keys.LEASE not in target.objects


@pytest.mark.parametrize("calls", [3, 40, 150])
def test_a_copy_that_broke_off_shows_no_job_by_half_and_goes_on(
    old: MemoryStore, calls: int
) -> None:
    """A power cut in the night must cost the rest of the night alone."""
    target = copied_by_half(old, calls)
    for key in target.objects:
        if key.endswith("/spec.json"):
            folder = key.removesuffix("spec.json")
            mine = {k for k in bodies(old) if k.startswith(f"{folder}attempts/")}
            assert mine <= target.objects.keys()
    before = len(bodies(target))
    copied = copy_store(old, target)
    assert bodies(target) == bodies(old)
    assert copied.copied <= len(bodies(old)) - before + copying.THREADS
    assert copy_store(old, target).copied == 0


def test_a_damaged_object_of_an_earlier_copy_is_written_anew(old: MemoryStore) -> None:
    """Equal sizes prove nothing."""
    target = Elsewhere()
    copy_store(old, target)
    key = max(bodies(old), key=lambda key: len(bodies(old)[key]))
    body = bytearray(target.objects[key].body)
    body[len(body) // 2] ^= 1
    target.put(key, bytes(body))
    assert copy_store(old, target).copied == 1
    assert bodies(target) == bodies(old)


def test_an_object_that_arrives_changed_ends_the_copy(old: MemoryStore) -> None:
    """The store's own word for a put is not enough."""

    class Flipping(Elsewhere):
        def get(self, key: str):  # type: ignore[no-untyped-def]
            found = super().get(key)
            if key.startswith(keys.DATASETS):
                changed = bytes([found.body[0] ^ 1]) + found.body[1:]
                return type(found)(key, changed, found.etag, found.modified_at, found.read_at)
            return found

    with pytest.raises(OrchestratorError, match="arrived changed"):
        copy_store(old, Flipping())


def test_a_copy_that_is_brought_up_to_date_is_not_called_whole(old: MemoryStore) -> None:
    """Whoever finds it broken off would restore half of the one and half of the other."""
    target = Elsewhere()
    copy_store(old, target)
    assert json.loads(target.objects[keys.COPIED_FROM].body)["finished_at"]
    target.put(max(bodies(old)), b"damaged")
    failing = FaultyStore(target, 5, dead=True)
    failing.address, failing.uri = target.address, target.uri  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailableError):
        copy_store(old, failing)
    assert json.loads(target.objects[keys.COPIED_FROM].body)["finished_at"] is None
    copy_store(old, target)
    assert json.loads(target.objects[keys.COPIED_FROM].body)["finished_at"]


def test_what_was_deleted_since_goes_from_the_copy(old: MemoryStore) -> None:
    """A copy is of one moment, not of all."""
    target = Elsewhere()
    copy_store(old, target)
    gone = next(key for key in bodies(old) if "/attempts/" in key)
    old.delete(gone)
    assert copy_store(old, target).removed == 1
    assert gone not in target.objects


def test_live_jobs_are_refused_by_name() -> None:
    """The copy's orchestrator would run them a second time."""
    world = World()
    submit_job(world.store, train_job(), "alive")
    with pytest.raises(OrchestratorError, match=r"1 job of memory:// have not ended \(alive\)"):
        copy_store(world.store, Elsewhere())


def test_a_job_submitted_meanwhile_is_noticed(old: MemoryStore) -> None:
    """Nobody locks a store."""

    class Busy(Elsewhere):
        def put(self, key: str, body: bytes, **conditions: object) -> str:
            if key == keys.INDEX:
                submit_job(old, train_job(), "late")
            return super().put(key, body, **conditions)  # type: ignore[arg-type]

    with pytest.raises(OrchestratorError, match="late"):
        copy_store(old, Busy())


def test_only_an_empty_place_or_an_unused_copy_of_this_store_is_written_to(
    old: MemoryStore,
) -> None:
    """It removes what the store does not hold, so it must know whose copy it stands in."""
    used = Elsewhere()
    used.put("something", b"else")
    with pytest.raises(OrchestratorError, match="not empty"):
        copy_store(old, used)
    assert used.objects.keys() == {"something"}
    target = Elsewhere()
    copy_store(old, target)
    other = MemoryStore()
    other.address = "other memory://"
    with pytest.raises(OrchestratorError, match="is a copy of memory://"):
        copy_store(other, target)
    target.put(keys.LEASE, b"{}")
    with pytest.raises(OrchestratorError, match="an orchestrator has worked on"):
        copy_store(old, target)
    with pytest.raises(OrchestratorError, match="lies in"):
        copy_store(old, old)


def test_a_job_of_a_copied_store_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The back-up is for the day when the store is gone."""
    world = World()
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.beat(job_id, committed=4)
    world.step()
    request(world.store, job_id, Verb.CANCEL)
    world.step()
    world.end(job_id, Outcome(stopped=True, progress=4, message="stopped"))
    world.step(3)
    assert world.state(job_id) == "CANCELLED"
    target = Elsewhere()
    target.clock = world.store.clock
    monkeypatch.setattr(store_verb, "open_elsewhere", lambda *_: target)
    said = Verbs(monkeypatch, world.store)(store_verb.store_command, ["copy", "s3://b/copy"])
    assert said.exit_code == 0
    assert "in s3://b/copy" in said.out
    other = World(target)
    assert [job.job_id for job in list_jobs(target)] == [job_id]
    request(target, job_id, Verb.RETRY)
    other.step(2)
    record = other.record(job_id)
    assert (record.state, record.attempt) == ("STARTING", 2)
    assert record.attempts[0].progress == world.record(job_id).attempts[0].progress
    assert JobPaths(job_id).attempt(1).outcome in target.objects
    assert world.record(job_id).attempt == 1
