"""The fleet on a real cluster and a real store: the same images whatever happens to it."""

import json
import os
import secrets
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import webdataset

from ddpm.checkpoint import save_state
from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.training import TrainState
from orchestrator.checkpoints import CheckpointStore
from orchestrator.images import decode_png
from orchestrator.outcome import OUTCOME, Outcome
from orchestrator.paths import JobPaths
from orchestrator.ray_jobs import RayJobs, RayJobStatus
from orchestrator.records import RecordStore, encode_record, read_json
from orchestrator.sample_model import resolve_model
from orchestrator.sample_sets import repair_samples, verify_samples
from orchestrator.sample_shards import SampleShards
from orchestrator.spec import ModelRef, SampleJob, SampleResources, WorkerRange
from orchestrator.stack import StackInfo
from orchestrator.state import AttemptRecord, JobRecord, JobState, Placement
from orchestrator.storage import ObjectStore, open_store

NUM_SAMPLES = 200
NUM_STEPS = 20
MODEL_JOB = "fleet-model"
WAIT_S = 240.0


@dataclass
class Fleets:
    """Starts attempts of sample jobs without an orchestrator."""

    store: ObjectStore
    token: str
    jobs: RayJobs = field(default_factory=RayJobs)
    records: dict[str, JobRecord] = field(default_factory=dict)

    def start(self, job_id: str, spec: SampleJob, num_workers: int) -> JobPaths:
        """Start the next attempt of a job."""
        paths, now = JobPaths(job_id), self.store.now()
        record = self.records.get(job_id)
        if record is None:
            record = JobRecord(
                job_id=job_id,
                kind="sample",
                name=spec.name,
                queue="default",
                priority=50,
                state=JobState.RUNNING,
                submitted_at=now,
                changed_at=now,
                model=resolve_model(self.store, spec.model),
            )
        number = record.attempt + 1
        record = replace(
            record,
            attempt=number,
            attempts=(*record.attempts, AttemptRecord(number=number, started_at=now)),
            placement=Placement(
                workers_by_node={"": num_workers}, cpus_per_worker=1, gpus_per_worker=0
            ),
        )
        self.records[job_id] = record
        self.store.put(paths.spec, spec.model_dump_json().encode())
        self.store.put(paths.record, encode_record(record))
        self.jobs.submit(
            self._submission(record),
            f"python -m orchestrator.sampling_job {self.store.uri} {job_id} {number}",
            metadata={},
        )
        return paths

    def outcome(self, paths: JobPaths, within_s: float = WAIT_S) -> Outcome:
        """Wait for what the present attempt comes to, and for its driver's end."""
        record = self.records[paths.job_id]
        submission = self._submission(record)
        wait_until(
            lambda: self.jobs.status(submission) is RayJobStatus.ENDED,
            within_s,
            f"{submission} does not end",
        )
        return OUTCOME.validate_json(self.store.get(paths.attempt(record.attempt).outcome).body)

    def _submission(self, record: JobRecord) -> str:
        return f"{self.token}.{record.job_id}.{record.attempt}"

    def set_sha256(self, paths: JobPaths) -> str:
        """Return the hash in a set's manifest."""
        found = read_json(self.store, paths.manifest)
        assert found is not None
        return str(found[0]["set_sha256"])


def wait_until(condition: Callable[[], object], within_s: float, message: str) -> None:
    """Look until something holds."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.1)


def spec_of(name: str, *, shard_size: int = 16, workers: int = 1, **sampling: Any) -> SampleJob:
    """Return a small job."""
    return SampleJob(
        kind="sample",
        name=name,
        model=ModelRef(job=MODEL_JOB),
        num_samples=NUM_SAMPLES,
        sampling=SamplingConfig(
            num_steps=NUM_STEPS, microbatch_size=16, precision="float32", compile=False, **sampling
        ),
        shard_size=shard_size,
        resources=SampleResources(
            num_workers=WorkerRange(min=1, max=workers), cpus_per_worker=1, gpus_per_worker=0
        ),
    )


def put_model(store: ObjectStore, folder: Path) -> None:
    """Commit a checkpoint with random weights, a stand-in for a trained one."""
    state = TrainState(
        unet_config=UNetConfig(channels=8, channel_multipliers=(1, 2), attention_resolutions=()),
        diffusion_config=DiffusionConfig(num_timesteps=100),
        config=TrainingConfig(num_steps=1),
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )
    noise = torch.randn(state.ema.shape, generator=torch.Generator().manual_seed(1))
    state.ema.add_(noise, alpha=0.05)
    save_state(state, folder)
    CheckpointStore(store, JobPaths(MODEL_JOB)).commit(1, folder, 1, {})
    store.put(JobPaths(MODEL_JOB).spec, b"{}")


@pytest.fixture(scope="module")
def fleets(stack_info: StackInfo, tmp_path_factory: pytest.TempPathFactory) -> Fleets:
    """A store of its own on the session's stack, with a model in it."""
    uri = os.environ["DDPMCTL_STORE"] + "/fleet-tests"
    store = open_store(uri)
    put_model(store, tmp_path_factory.mktemp("model"))
    return Fleets(store, secrets.token_hex(4))


@pytest.fixture(scope="module")
def reference(fleets: Fleets) -> str:
    """The hash of the set that one worker draws in peace."""
    paths = fleets.start("calm", spec_of("calm", trajectory=4), 1)
    outcome = fleets.outcome(paths)
    assert outcome.succeeded, outcome
    return fleets.set_sha256(paths)


def worker_of(fleets: Fleets, paths: JobPaths, index: int) -> str:
    """Return the name of the worker that committed a shard."""
    commit = SampleShards(fleets.store, paths).find(index)
    assert commit is not None
    return commit.worker


def kill_author(fleets: Fleets, paths: JobPaths, spared: Container[str]) -> str:
    """Kill -9 the worker of the next commit, which draws its next shard by then."""
    shards = SampleShards(fleets.store, paths)

    def authors() -> list[str]:
        names = (worker_of(fleets, paths, index) for index in shards.indices())
        return [name for name in names if name not in spared]

    wait_until(authors, WAIT_S, "no commit")
    name = authors()[-1]
    number, _, rank = name.partition("-worker-")
    folder = f"{paths.attempt(int(number)).processes}worker-{rank}-"
    process = json.loads(fleets.store.get(next(fleets.store.list_objects(folder)).key).body)
    psutil.Process(process["pid"]).kill()
    return name


def test_set_is_whole_and_shown(fleets: Fleets, reference: str) -> None:
    """The plain path: every image in order, proven, with a grid and a film for people."""
    paths = JobPaths("calm")
    report = verify_samples(fleets.store, "calm")
    assert report.is_whole, report.problems
    assert report.num_images == NUM_SAMPLES
    assert report.set_sha256 == reference
    for name in ("grid.png", "reverse-chain.png"):
        assert decode_png(fleets.store.get(f"{paths.samples}{name}").body).size > 0


def test_set_depends_on_neither_workers_nor_shards(fleets: Fleets, reference: str) -> None:
    """Image k is a function of the model, the seed and k: who draws it, and with whom, is not."""
    one = fleets.start("one-64", spec_of("one-64", shard_size=64), 1)
    three = fleets.start("three-16", spec_of("three-16", workers=3), 3)
    for paths in (one, three):
        assert fleets.outcome(paths).succeeded
        assert fleets.set_sha256(paths) == reference


def test_two_workers_killed_in_mid_chain_change_nothing(fleets: Fleets, reference: str) -> None:
    """Spot machines vanish without a word; the others and the replacements draw the rest."""
    paths = fleets.start("killed", spec_of("killed", workers=3), 3)
    first = kill_author(fleets, paths, ())
    second = kill_author(fleets, paths, (first,))
    outcome = fleets.outcome(paths)
    assert outcome.succeeded, outcome
    assert fleets.set_sha256(paths) == reference
    lost = [event.message for event in RecordStore(fleets.store).events("killed")]
    assert {line.split()[0] for line in lost if " is lost" in line} == {first, second}


def test_cancelled_and_retried_job_goes_on_where_it_was(fleets: Fleets, reference: str) -> None:
    """What was drawn when the word to stop came is kept, down to the step of each chain."""
    paths = fleets.start("cancelled", spec_of("cancelled", shard_size=64, workers=2), 2)
    wait_until(lambda: fleets.store.exists(paths.decisions), WAIT_S, "nothing decided")
    request = {"at": fleets.store.now().isoformat(), "grace_s": 30}
    fleets.store.put(paths.attempt(1).stop, json.dumps(request).encode())
    outcome = fleets.outcome(paths)
    assert outcome.stopped
    assert outcome.progress < NUM_SAMPLES
    partials = list(fleets.store.list_objects(paths.attempt(1).partial))
    assert 1 <= len(partials) <= 2
    fleets.start("cancelled", spec_of("cancelled", shard_size=64, workers=2), 1)
    assert fleets.outcome(paths).succeeded
    assert fleets.set_sha256(paths) == reference
    assert list(fleets.store.list_objects(paths.attempt(1).partial)) == []


def test_repaired_set_is_the_same_set(fleets: Fleets, reference: str) -> None:
    """Only what was damaged is drawn again, and nobody can tell afterwards."""
    paths, store = JobPaths("calm"), fleets.store
    shards = SampleShards(store, paths)
    damaged = shards.find(3)
    assert damaged is not None
    body = bytearray(store.get(damaged.data_key).body)
    body[1000] ^= 1
    store.put(damaged.data_key, bytes(body))
    store.delete(paths.shard(7))
    kept = store.get(paths.shard(4)).etag
    assert repair_samples(store, "calm").bad_shards == (3, 7)
    fleets.start("calm", spec_of("calm", trajectory=4), 1)
    assert fleets.outcome(paths).succeeded
    report = verify_samples(store, "calm")
    assert report.is_whole, report.problems
    assert report.set_sha256 == reference
    assert store.get(paths.shard(4)).etag == kept


def test_late_duplicate_changes_nothing(fleets: Fleets, reference: str) -> None:
    """A worker of an old attempt that wakes up after everything is done finds its place taken."""
    store, paths = fleets.store, JobPaths("calm")
    shards = SampleShards(store, paths)
    standing = shards.find(0)
    assert standing is not None

    def images() -> list[tuple[str, str]]:
        folders = (paths.samples, f"{paths.attempt(1).folder}data/")
        return [(info.key, info.etag) for name in folders for info in store.list_objects(name)]

    before = images()
    late = replace(standing, data_key=f"{paths.attempt(1).data('late')}shard-000000.tar")
    store.put(late.data_key, store.get(standing.data_key).body)
    assert shards.commit(late) == standing
    assert images() == before
    assert verify_samples(store, "calm").set_sha256 == reference


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_a_shard(fleets: Fleets, reference: str, tmp_path: Path) -> None:
    """The format is the one that others' data loaders know."""
    shards = SampleShards(fleets.store, JobPaths("calm"))
    commit = shards.find(1)
    assert commit is not None
    fleets.store.get_file(commit.data_key, tmp_path / "shard.tar")
    dataset = webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False)
    samples = list(dataset)
    assert [sample["__key__"] for sample in samples] == [f"{k:09d}" for k in range(16, 32)]
    pixels = np.stack([decode_png(sample["png"]) for sample in samples])
    assert np.array_equal(pixels, shards.read(commit))
