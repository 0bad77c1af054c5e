"""The smoke test finds early what would break a job late, and changes nothing of it."""

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.training.checkpoint import StateSnapshot
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.artifacts.samples.commits import SetOrigin, ShardCommit
from orchestrator.artifacts.samples.encoding import encode_shard, hash_bytes, hash_pixels
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.smoke import smoke_part
from orchestrator.client.status import list_jobs
from orchestrator.client.submit import submit_with_smoke
from orchestrator.controller.admission import resolve_resources, unseen_by_smoke
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.controller.smoke_gate import smoke_gate
from orchestrator.errors import BadInputError, SmokeTestError, StoreRefusedError
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.heartbeat import OUTCOME
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.causes import reason_of
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobRecord, JobState, Reason, ResolvedResources
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.sampling.drawing import DrawnShard
from orchestrator.sampling.smoke import smoke_drawing
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.specs.kinds import stored_job
from orchestrator.specs.resources import TrainResources
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import DatasetSpec, ModelRef
from orchestrator.specs.smoke import smoke_job, smoke_job_id
from orchestrator.specs.train import TrainJob
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.names import MAX_JOB_ID_LENGTH, check_name
from orchestrator.training.smoke import smoke_training
from tests.orchestrator.sampling.test_drawing import sampler
from tests.support.cluster import FakeCluster
from tests.support.fakes import MemoryStore
from tests.support.records import record_of

UNET = UNetConfig(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, dropout=0.1)
TRAINING = TrainingConfig(num_steps=8, global_batch_size=6, learning_rate=1e-3, ema_decay=0.9)


def spec(workers: int = 2, **fields: Any) -> TrainJob:
    """Return a training of several workers."""
    return TrainJob(
        kind="train",
        name="a",
        dataset=DatasetSpec(source="digits"),
        training=TRAINING,
        resources=TrainResources(num_workers=workers, **fields),
    )


def attempt_of(store: Any) -> Attempt:
    """Return the first attempt of a job."""
    now = MemoryStore().now()
    record = record_of("a", at=now, state=JobState.STARTING)
    return Attempt(store, spec(), record, 1)


def dataset() -> ImageDataset:
    """Return a few images."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    return ImageDataset(images, np.arange(len(images)))


def trained(smoked: bool, store: MemoryStore) -> StateSnapshot:
    """Train from step 3 on, as a resumed attempt, with or without a smoke test first."""
    state = TrainState(
        unet_config=UNET,
        diffusion_config=DiffusionConfig(num_timesteps=100),
        config=TRAINING,
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )
    list(train_steps(state, dataset(), until_step=3))
    if smoked:
        smoke_training(attempt_of(store), state, dataset(), Decisions({"num_workers": 2}), 0)
        assert state.step == 3
    list(train_steps(state, dataset(), until_step=6))
    return StateSnapshot.take(state)


def test_a_smoke_test_changes_no_bit_of_a_training_and_leaves_nothing() -> None:
    """It takes a real step: weights, averages, moments and counters must all be put back."""
    store = MemoryStore()
    calm, smoked = trained(False, store), trained(True, store)
    assert torch.equal(calm.model, smoked.model)
    assert torch.equal(calm.ema, smoked.ema)
    for name, moment in calm.moments.items():
        assert torch.equal(moment, smoked.moments[name]), name
    assert calm.info.step == smoked.info.step == 6
    assert store.objects == {}


def test_smoke_test_passes_for_images_of_many_channels() -> None:
    """A field of twelve quantities is no PNG, but can be trained on."""
    values = np.random.default_rng(0).normal(size=(20, 8, 8, 12)).astype(np.float32)
    fields = ImageDataset(values, np.arange(20), value_range=(-6.0, 6.0))
    state = TrainState(
        unet_config=UNET,
        diffusion_config=DiffusionConfig(num_timesteps=100),
        config=TRAINING,
        image_shape=(12, 8, 8),
        compute=ComputeDecision(),
    )
    smoke_training(attempt_of(MemoryStore()), state, fields, Decisions({"num_workers": 2}), 0)
    assert state.step == 0


class WatchedStore(MemoryStore):
    """A store that notes every key that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: set[str] = set()

    def put(self, key: str, body: bytes, **condition: Any) -> str:
        """Write and note."""
        self.written.add(key)
        return super().put(key, body, **condition)


def test_what_is_tried_looks_like_no_checkpoint() -> None:
    """An attempt that dies in its smoke test must leave nothing that a reader would load."""
    store = WatchedStore()
    trained(True, store)
    assert store.written
    assert all(key.startswith("jobs/a/attempts/1/data/smoke-") for key in store.written)


class DamagingStore(MemoryStore):
    """A store that gives back something else than it was given."""

    def get_file(self, key: str, path: Path) -> None:
        """Lose the last byte."""
        path.write_bytes(self.get(key).body[:-1])


class RefusingStore(MemoryStore):
    """A store that lets nobody write."""

    def put(self, key: str, body: bytes, **condition: Any) -> str:
        """Refuse."""
        raise StoreRefusedError("no right to write")


@pytest.mark.parametrize("store", [DamagingStore(), RefusingStore()])
def test_a_store_that_does_not_keep_checkpoints_fails_the_smoke_test(store: MemoryStore) -> None:
    """Hours of training would be lost at the first checkpoint."""
    with pytest.raises(SmokeTestError) as caught:
        trained(True, store)
    assert reason_of(caught.value) is Reason.BAD_INPUT
    assert "the smoke test failed while saving a checkpoint" in str(caught.value)


def test_the_reason_of_what_went_wrong_stays() -> None:
    """A lost peer is tried again, a wrong input is not, whether or not it was the smoke test."""
    for error, reason in (
        (RuntimeError("Connection closed by peer"), Reason.WORKER_LOST),
        (BadInputError("no"), Reason.BAD_INPUT),
        (KeyError("x"), Reason.USER_CODE),
    ):
        with pytest.raises(SmokeTestError) as caught, smoke_part("trying"):
            raise error
        assert reason_of(copy.copy(caught.value)) is reason  # as Ray carries it


def put_shard(store: MemoryStore, drawn: DrawnShard) -> ShardCommit:
    """Store a shard's data as a worker does."""
    body = encode_shard(drawn.pixels, 0, "webdataset")
    key = f"{JobPaths('s').attempt(1).data('x')}shard-000000.tar"
    store.put(key, body)
    return ShardCommit(
        index=0,
        start=0,
        stop=1,
        data_key=key,
        size_bytes=len(body),
        sha256=hash_bytes(body),
        pixel_sha256=hash_pixels(drawn.pixels),
        image_shape=drawn.pixels.shape[1:],
        format="webdataset",
        origin=SetOrigin(checkpoint_sha256="c", seed=5, decisions_sha256="d"),
        attempt=1,
        worker="w",
        seconds=0.0,
    )


def test_a_worker_tries_an_image_before_its_first_shard_and_removes_it() -> None:
    """A store without the right to read is found in seconds, not after the first shard."""
    store = MemoryStore()
    shards = SampleShards(store, JobPaths("s"))
    smoke_drawing(sampler().hasty(2), lambda drawn: put_shard(store, drawn), shards)
    assert store.objects == {}
    with pytest.raises(SmokeTestError, match="storing an image"):
        smoke_drawing(sampler().hasty(2), lambda drawn: put_shard(RefusingStore(), drawn), shards)


@pytest.mark.parametrize("job_id", ["a", "digits-20261122-153012-k7q2", "x" * 40, "y" * 33 + "-z"])
def test_a_smoke_test_has_an_id_of_its_own_that_can_be_used(job_id: str) -> None:
    """It is derived, so submitting twice is still submitting once."""
    smoke_id = smoke_job_id(job_id)
    assert check_name("id", smoke_id) == smoke_id != job_id
    assert len(smoke_id) <= MAX_JOB_ID_LENGTH


def test_two_long_ids_have_two_smoke_tests() -> None:
    """Ids made in one second differ in their last letters only, which are cut off."""
    assert smoke_job_id("x" * 39 + "a") != smoke_job_id("x" * 39 + "b")


def test_the_small_job_is_a_valid_one_of_one_worker_with_the_same_settings() -> None:
    """A worker's share of the batch fits its memory as in the main job."""
    small = smoke_job(spec(workers=3))
    assert isinstance(stored_job(small.model_dump(mode="json")), TrainJob)
    assert isinstance(small, TrainJob)
    assert (small.num_workers.max, small.training.global_batch_size) == (1, 2)
    assert (small.model, small.training.num_steps) == (spec().model, TRAINING.num_steps)
    sample = SampleJob(
        kind="sample",
        name="abcdefghijklmnopqrs",
        model=ModelRef(job="a"),
        num_samples=10_000,
        sampling=SamplingConfig(num_steps=100),
    )
    few = smoke_job(sample)
    assert isinstance(few, SampleJob)
    assert stored_job(few.model_dump(mode="json")) == few
    assert (few.num_samples, few.sampling.num_steps) == (1, 2)


def test_a_smoke_test_does_not_wait_for_a_gpu() -> None:
    """On a full cluster it still finds a typo in a path, on a CPU."""
    small = smoke_job(spec(gpus_per_worker=1))
    for free, gpus in ((0, 0.0), (1, 1.0)):
        node = NodeCapacity(node_id="n", cpus=8, gpus=4, free_cpus=8, free_gpus=free)
        resources = resolve_resources(small, [node], is_smoke=True)
        assert resources.gpus_per_worker == gpus
        assert resources.cpus_per_worker == (2 if gpus else 1)
        unseen = unseen_by_smoke(small, resources, [node])
        assert ("memory and kernels are not tried" in unseen) is (gpus == 0)


class World:
    """A store, a cluster of four CPUs, an orchestrator, and a job behind its smoke test."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.main = submit_with_smoke(self.store, spec(), "main").job_id
        self.smoke = smoke_job_id(self.main)
        self.take_over(FakeCluster())
        self.step()

    def take_over(self, cluster: FakeCluster) -> None:
        """Start an orchestrator."""
        lease = Lease(self.store, "test", term_s=1e9)
        assert lease.acquire()
        self.cluster, self.controller = cluster, Controller(self.store, cluster, lease)
        self.controller.take_over()

    def step(self, times: int = 1) -> None:
        """Run the loop."""
        for _ in range(times):
            self.store.advance(1)
            self.controller.step()

    def record(self, job_id: str) -> JobRecord:
        """Read a record."""
        return RecordStore(self.store).read(job_id).record

    def end_smoke(self, outcome: Outcome) -> None:
        """Have the smoke test come to something."""
        self.store.put(JobPaths(self.smoke).attempt(1).outcome, OUTCOME.encode(outcome))
        self.cluster.statuses[f"{self.smoke}.1"] = DriverStatus.FAILED
        self.step(3)


def test_a_job_starts_only_once_its_smoke_test_has_passed() -> None:
    """Until then it says what it waits for, in `list` too."""
    world = World()
    assert list(world.cluster.started) == ["main-smoke.1"]
    (shown,) = (job for job in list_jobs(world.store) if job.job_id == "main")
    assert (shown.state, shown.reason) == ("QUEUED", "WAITING_FOR_SMOKE")
    assert world.smoke in shown.message
    assert not world.store.exists("tracking/main-smoke")
    world.end_smoke(Outcome(succeeded=True))
    assert "main.1" in world.cluster.started


def test_a_job_whose_smoke_test_failed_never_starts_and_says_why() -> None:
    """A typo in a path costs seconds and not a night."""
    world = World()
    world.end_smoke(Outcome(reason=Reason.BAD_INPUT, message="there is no such image"))
    main = world.record("main")
    assert (main.state, main.reason, main.attempt) == (JobState.FAILED, Reason.BAD_INPUT, 0)
    assert "there is no such image" in main.message
    assert list(world.cluster.started) == ["main-smoke.1"]


def test_a_new_orchestrator_knows_what_a_smoke_test_said() -> None:
    """The word of a job that has ended is read from its record."""
    world = World()
    world.cluster.cpus = 0
    world.end_smoke(Outcome(succeeded=True))
    assert world.record("main").state is JobState.QUEUED
    world.store.delete(keys.LEASE)
    world.take_over(FakeCluster())
    world.step()
    assert list(world.cluster.started) == ["main.1"]


@pytest.mark.parametrize("reason", [Reason.TIMED_OUT, Reason.OUT_OF_MEMORY, Reason.BAD_INPUT])
@pytest.mark.parametrize("gpus", [0.0, 1.0])
@pytest.mark.parametrize("wants_gpu", [False, True])
def test_what_a_cpu_was_too_small_for_says_nothing_of_a_gpu(
    reason: Reason, gpus: float, wants_gpu: bool
) -> None:
    """A smoke test waits for no GPU, so it may have had one CPU instead."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    smoke = record_of(
        "a-smoke",
        at=now,
        state=JobState.FAILED,
        reason=reason,
        attempt=1,
        resources=ResolvedResources(
            min_workers=1, max_workers=1, cpus_per_worker=1, gpus_per_worker=gpus
        ),
    )
    says_nothing = wants_gpu and not gpus and reason is not Reason.BAD_INPUT
    assert smoke_gate(smoke, wants_gpu=wants_gpu).is_open is says_nothing
