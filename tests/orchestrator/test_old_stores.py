"""A store that version 0.1 wrote is read, and what it left unfinished goes on to the same bits.

`tests/fixtures/store-0.1` was written once, on a real stack, by version 0.1 (`facts.json` says by
which sources and on what machine) and holds what that version said of each job then.
"""

import json
import tarfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.artifacts.samples.export import export_samples
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.cli.output import plain
from orchestrator.client.garbage import collect_garbage
from orchestrator.client.status import job_status, list_jobs, request
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.jobs.decisions import read_decisions
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.jobs.units import plan_shards
from orchestrator.sampling.partial_keys import newest_partials
from orchestrator.sampling.prepared import PreparedSampler
from orchestrator.sampling.setup import StoreSetup
from orchestrator.specs.sample import SampleJob
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.world import World

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "store-0.1"
FACTS = json.loads((FIXTURE / "facts.json").read_text("utf-8"))
# How old the orchestrator's word is changes from one reading to the next.
_OF_THE_MOMENT = {"stale", "confirmed_at"}
HALF_DRAWN = "cut-images"


@pytest.fixture
def store() -> MemoryStore:
    """The old store, at the time at which it was kept."""
    store = MemoryStore()
    store.clock = datetime.fromisoformat(FACTS["exported_at"])
    with tarfile.open(FIXTURE / "store.tar.gz") as archive:
        for member in archive:
            body = archive.extractfile(member)
            assert body is not None
            store.put(member.name, body.read())
    return store


def _as_told(value: object) -> Any:
    """Return what a program reads of a verb's result."""
    return json.loads(json.dumps(value, default=plain))


def _lasting(value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name not in _OF_THE_MOMENT}


def _includes(found: Any, told: Any) -> bool:
    """Tell whether all that was told is still told; later versions may add keys."""
    if isinstance(told, dict):
        return all(name in found and _includes(found[name], one) for name, one in told.items())
    if isinstance(told, list):
        return len(found) == len(told) and all(map(_includes, found, told))
    return bool(found == told)


def test_jobs_of_an_old_store_are_listed_as_they_were(store: MemoryStore) -> None:
    """An upgrade must not change what is said of work that is done."""
    found = {job.job_id: _lasting(_as_told(job)) for job in list_jobs(store, everything=True)}
    assert {job["job_id"] for job in FACTS["list"]} <= found.keys()
    for job in FACTS["list"]:
        assert _includes(found[job["job_id"]], _lasting(job)), job["job_id"]


@pytest.mark.parametrize("job", FACTS["status"])
def test_status_and_history_of_an_old_job_are_as_they_were(store: MemoryStore, job: str) -> None:
    """Records, heartbeats, outcomes and events of before are still understood."""
    assert _includes(_lasting(_as_told(job_status(store, job))), _lasting(FACTS["status"][job]))
    if job in FACTS["events"]:
        events = _as_told(RecordStore(store).events(job))
        assert _includes(events, FACTS["events"][job])
    assert read_submission(RecordStore(store), job).spec_hash


@pytest.mark.parametrize("job", ["digits-images", "whole-images", "line-sample"])
def test_an_old_set_is_proven_and_exported(store: MemoryStore, tmp_path: Path, job: str) -> None:
    """The same images by the same hash, in every form."""
    report = verify_samples(store, job)
    assert report.is_whole
    assert report.set_sha256 == FACTS["verify"][job]["set_sha256"]
    for form in ("npz", "png", "parquet"):
        assert export_samples(store, job, form, tmp_path / form) == report.num_images


def test_nothing_of_an_old_store_is_taken_for_garbage_unseen(store: MemoryStore) -> None:
    """An unreadable mark or commit would be skipped, or worse, deleted with its data."""
    assert not collect_garbage(store, dry_run=True).skipped


def test_old_jobs_are_adopted_and_tried_again(store: MemoryStore) -> None:
    """A submission nobody saw, a cancelled set and a cancelled training start their attempts."""
    world = World(store)
    store.advance(120)
    for job in (HALF_DRAWN, "cut-train"):
        request(store, job, Verb.RETRY)
    world.step(3)
    assert {"unseen.1", "cut-images.2", "cut-train.2"} <= set(world.cluster.started)


@pytest.mark.slow
def test_a_half_drawn_old_shard_goes_on_to_the_bits_it_would_have_had(store: MemoryStore) -> None:
    """From its (x_t, t) of before; the old version drew the whole set for comparison."""
    paths = JobPaths(HALF_DRAWN)
    spec = read_submission(RecordStore(store), HALF_DRAWN)
    assert isinstance(spec, SampleJob)
    decisions = read_decisions(store, paths)
    assert decisions is not None
    setup = StoreSetup(
        store_uri="",
        job_id=HALF_DRAWN,
        attempt=2,
        spec=spec,
        model=SET_DECISIONS.of(decisions.values).model,
        cpus=1,
        uses_gpu=False,
    )
    worker = PreparedSampler(store, setup, "2-worker-0", decisions).begin(decisions)
    index, partial = max(newest_partials(store, paths, 2))
    shard, watch = plan_shards(spec.num_samples, spec.shard_size)[index], Watch()
    task = ShardTask(shard, partial)
    assert worker.keep(task, worker.compute(task, watch)).kind == "committed"
    num_microbatches = -(-shard.num_images // spec.sampling.microbatch_size)
    assert 0 < watch.steps_drawn < num_microbatches * spec.sampling.num_steps
    own = SampleShards(store, paths).find(index)
    undisturbed = SampleShards(store, JobPaths("whole-images")).find(index)
    assert own is not None
    assert undisturbed is not None
    if not worker.remarks:  # the same torch on the same kind of machine
        assert own.pixel_sha256 == undisturbed.pixel_sha256
