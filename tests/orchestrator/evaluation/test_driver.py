"""An evaluation fixes what it compares, computes no feature twice, and says what it found."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.datasets.ingest import ingest_as_asked
from orchestrator.attempts.attempt import Attempt
from orchestrator.client.results import read_evaluations
from orchestrator.errors import BadInputError, ShardDamagedError
from orchestrator.evaluation.driver import Evaluation
from orchestrator.evaluation.extractors import extractor_sha256
from orchestrator.evaluation.feature_shards import FeatureShards
from orchestrator.evaluation.worker import FeatureSetup, PreparedFeatures
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.jobs.curve import read_curve
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.units import JoinedPlan
from orchestrator.lifecycle.state import Placement
from orchestrator.specs.envelope import Origin
from orchestrator.specs.evaluate import EvaluateJob, SetRef, StatisticsSpec
from orchestrator.specs.measuring import ExtractorSpec
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.writer import MetricWriter
from tests.support.fakes import MemoryStore
from tests.support.sample_sets import put_dataset, put_set

PLACEMENT = Placement(workers_by_node={"n": 1}, cpus_per_worker=1, gpus_per_worker=0.0)


def images(seed: int, num: int, size: int = 4) -> NDArray[np.uint8]:
    """Blobs of three kinds: (N, size, size, 1)."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).integers(40, 200, (3, size, size, 1))
    noise = rng.normal(0, 12, (num, size, size, 1))
    pixels: NDArray[np.uint8] = (centres[rng.integers(0, 3, num)] + noise).round().astype(np.uint8)
    return pixels


class Evaluated:
    """An evaluation of a set against a data set, in memory."""

    def __init__(self, store: MemoryStore, job_id: str, spec: EvaluateJob) -> None:
        self.store = store
        store.put(JobPaths(job_id).spec, spec.model_dump_json().encode())
        record = RecordStore(store).read(job_id).record
        record = dataclasses.replace(record, placement=PLACEMENT, attempt=1)
        self.attempt = Attempt(store, spec, record, 1)
        self.computed: list[int] = []

    def begin(self, metrics: MetricWriter) -> Evaluation:
        """Fix what is compared."""
        return Evaluation.begin(self.attempt, metrics)

    def compute(self, evaluation: Evaluation) -> None:
        """Do what a fleet of one worker does."""
        setup = FeatureSetup(store_uri="", cpus=1, uses_gpu=False)
        worker = PreparedFeatures(self.store, setup).begin(evaluation.decisions)
        plan = JoinedPlan(tuple(images.plan for images in evaluation.sets))
        for shard in plan:
            number, own = plan.locate(shard.index)
            features = FeatureShards(
                self.store,
                extractor_sha256(evaluation.spec.extractor),
                evaluation.sets[number].sha256,
            )
            if not features.is_committed(own):
                task = ShardTask(shard)
                assert worker.keep(task, worker.compute(task, Watch())).is_own
                self.computed.append(shard.index)

    def result(self) -> dict[str, Any]:
        """Return what it left in the store."""
        key = JobPaths(self.attempt.record.job_id).evaluation
        return dict(json.loads(self.store.get(key).body))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store with a sample set of 90 images in shards of 40, and a data set of 200."""
    monkeypatch.setenv("DDPMCTL_CACHE", str(tmp_path / "machine"))
    store = MemoryStore()
    put_set(store, "drawn", images(1, 90), 40)
    store.sha256 = put_dataset(store, tmp_path, images(2, 200))  # type: ignore[attr-defined]
    return store


@pytest.fixture
def metrics(store: MemoryStore) -> Iterator[MetricWriter]:
    """Where the numbers go."""
    with MetricWriter(store, JobPaths("quality").attempt(1)) as writer:
        yield writer


def spec_of(store: MemoryStore, **fields: Any) -> EvaluateJob:
    """An evaluation of the set against the data set."""
    sha256: str = store.sha256  # type: ignore[attr-defined]
    dataset = DatasetSpec(source="blobs", holdout_fraction=0.2, sha256=sha256)
    values: dict[str, Any] = {"of": SetRef(job="drawn"), "dataset": dataset, **fields}
    return EvaluateJob(kind="evaluate", name="quality", **values)


def test_an_evaluation_says_how_good_a_set_is(store: MemoryStore, metrics: MetricWriter) -> None:
    """Each number stands beside its spread and its floor, with n and k, under its full name."""
    job = Evaluated(store, "quality", spec_of(store))
    evaluation = job.begin(metrics)
    job.compute(evaluation)
    outcome = evaluation.run()
    assert outcome.succeeded
    assert outcome.message.startswith("kid-pixels ")
    result = job.result()
    assert set(result["scores"]) == {
        *("fd-pixels", "kid-pixels", "precision-pixels"),
        *("recall-pixels", "density-pixels", "coverage-pixels"),
    }
    coverage = result["scores"]["coverage-pixels"]
    assert (coverage["k"], coverage["num_samples"], coverage["num_reference"]) == (5, 90, 90)
    assert result["scores"]["kid-pixels"]["num_reference"] == 160  # what was not held out
    assert coverage["is_at_floor"]
    (told,) = result["remarks"]
    assert told.startswith("at or below its floor")
    assert f"coverage-pixels {coverage['value']:.4f} (floor {coverage['floor']:.4f})" in told
    assert result["memorisation"]["authentic_share"] > 0.3
    assert abs(result["memorisation"]["copying_score"]) < 4.0
    assert len(result["nearest"]) == 16
    assert store.exists("jobs/quality/evaluation-nearest.png")
    (row,) = read_evaluations(store, ["quality"]).rows
    assert row.metrics["coverage-pixels"].value == coverage["value"]
    assert (row.samples, row.reference, row.classes) == ("drawn", "blobs", {})


def test_a_set_that_copies_its_training_images_is_found_out(
    store: MemoryStore, metrics: MetricWriter
) -> None:
    """Its quality and coverage are perfect, so only memorisation gives it away."""
    put_set(store, "copies", images(2, 200)[:90], 40)
    job = Evaluated(store, "quality", spec_of(store, of=SetRef(job="copies")))
    evaluation = job.begin(metrics)
    job.compute(evaluation)
    evaluation.run()
    found = job.result()["memorisation"]
    assert found["authentic_share"] < 0.3  # the held-out images among them are no copies
    assert found["copying_score"] < -3.0
    assert found["nearest_min"] == 0.0
    remarks = job.result()["remarks"]
    assert any(line.startswith("copying_score -") and "copies" in line for line in remarks)


def test_samples_are_counted_by_class_where_the_real_images_have_labels(
    store: MemoryStore, metrics: MetricWriter, tmp_path: Path
) -> None:
    """A class that a model has forgotten is seen in no mean; features are those of the images."""
    pixels = np.random.default_rng(5).normal(0, 6, (200, 4, 4, 1))
    numbers = np.arange(200) % 2
    pixels[:, :2] += 60 + 120 * numbers[:, None, None, None]
    pixels[:, 2:] += 180 - 120 * numbers[:, None, None, None]
    real = pixels.round().astype(np.uint8)
    sha256 = put_dataset(store, tmp_path, real, numbers.tolist())
    put_set(store, "one-sided", real[numbers == 1][:80], 40)
    dataset = DatasetSpec(source="halves", holdout_fraction=0.2, sha256=sha256)
    spec = spec_of(store, of=SetRef(job="one-sided"), dataset=dataset)
    job = Evaluated(store, "quality", spec)
    evaluation = job.begin(metrics)
    job.compute(evaluation)
    evaluation.run()
    found = job.result()["classes"]
    assert (found["names"], found["shares"]) == (["0", "1"], [0.0, 1.0])
    assert (found["accuracy"], found["num_held_out"]) == (1.0, 40)
    assert sum(found["real_shares"]) == pytest.approx(1.0)
    assert evaluation.sets[1].sha256 != sha256  # the images' own name


def test_features_are_computed_once_for_all_jobs(store: MemoryStore, metrics: MetricWriter) -> None:
    """They lie under the hashes of images and extractor, not under a job."""
    first = Evaluated(store, "quality", spec_of(store))
    first.compute(first.begin(metrics))
    assert first.computed == [0, 1, 2, 3]
    put_set(store, "again", images(1, 90), 40)  # the same pixels by another job
    second = Evaluated(store, "more", spec_of(store, of=SetRef(job="again"), k=3))
    second.compute(second.begin(metrics))
    assert second.computed == []


def test_what_is_compared_is_fixed_by_the_first_attempt(
    store: MemoryStore, metrics: MetricWriter
) -> None:
    """A set that was drawn anew in between must not be mixed with features of the old one."""
    job = Evaluated(store, "quality", spec_of(store, of=SetRef(job="drawn")))
    before = job.begin(metrics).sets
    store.delete(JobPaths("drawn").manifest)
    assert job.begin(metrics).sets == before


def test_damaged_features_are_not_compared(store: MemoryStore, metrics: MetricWriter) -> None:
    """A flipped bit in one feature would move every metric a little, unseen."""
    job = Evaluated(store, "quality", spec_of(store))
    evaluation = job.begin(metrics)
    job.compute(evaluation)
    key = next(i.key for i in store.list_objects("features/") if i.key.endswith(".npy"))
    body = bytearray(store.get(key).body)
    body[-1] ^= 1
    store.put(key, bytes(body))
    with pytest.raises(ShardDamagedError, match="damaged"):
        evaluation.run()


def test_what_cannot_be_compared_is_refused_in_one_line(
    store: MemoryStore, metrics: MetricWriter
) -> None:
    """Before any worker starts, and naming what is wrong."""
    put_set(store, "half", images(1, 90), 40, whole=False)
    put_set(store, "large", images(1, 90, size=8), 40)
    put_set(store, "few", images(1, 4), 4)
    for number, (job_id, problem) in enumerate(
        [
            ("half", "is not whole"),
            ("large", "images of 8 x 8 with 1 channel, blobs of 4 x 4"),
            ("few", "k = 5 neighbours need more"),
            ("nobody", "no job"),
        ]
    ):
        job = Evaluated(store, f"q{number}", spec_of(store, of=SetRef(job=job_id)))
        with pytest.raises(BadInputError, match=problem) as error:
            job.begin(metrics)
        assert "\n" not in str(error.value)


def test_too_few_images_for_a_metric_are_said_and_another_is_offered(
    store: MemoryStore, metrics: MetricWriter
) -> None:
    """A distance whose covariance is singular would be mostly bias; the job goes on without it."""
    put_set(store, "small", images(1, 16), 16)  # as many as features, so one too few
    job = Evaluated(store, "quality", spec_of(store, of=SetRef(job="small")))
    evaluation = job.begin(metrics)
    job.compute(evaluation)
    assert evaluation.run().succeeded
    result = job.result()
    assert "fd-pixels" not in result["scores"]
    assert "kid-pixels" in result["scores"]
    assert any("more than 16 images on each side, there are 16" in one for one in result["remarks"])


def test_a_damaged_set_is_refused_and_leaves_nothing_half_written(
    store: MemoryStore, metrics: MetricWriter
) -> None:
    """What `samples verify` would refuse must not get a number."""
    job = Evaluated(store, "quality", spec_of(store))
    evaluation = job.begin(metrics)
    key = next(i.key for i in store.list_objects("jobs/drawn/") if i.key.endswith(".npy"))
    body = bytearray(store.get(key).body)
    body[-1] ^= 1
    store.put(key, bytes(body))
    with pytest.raises(ShardDamagedError, match="shard"):
        job.compute(evaluation)
    assert not store.exists(JobPaths("quality").evaluation)
    damaged = [i.key for i in store.list_objects("features/") if evaluation.sets[0].sha256 in i.key]
    assert len(damaged) < 2 * len(evaluation.sets[0].plan)  # none of the damaged shard


def test_an_extractor_file_that_is_another_one_leaves_no_features(
    store: MemoryStore, metrics: MetricWriter, tmp_path: Path
) -> None:
    """Its features would stand under the name of the right one, for every later job."""
    path = tmp_path / "extractor.pt"
    path.write_bytes(b"something else")
    extractor = ExtractorSpec(name="mine", file=str(path), sha256="0" * 64)
    job = Evaluated(store, "quality", spec_of(store, extractor=extractor))
    with pytest.raises(BadInputError, match=r"extractor\.file: .*; it is another file"):
        job.compute(job.begin(metrics))
    assert not list(store.list_objects("features/"))
    assert not store.exists(JobPaths("quality").evaluation)


def test_a_reference_of_other_values_is_refused(
    store: MemoryStore, metrics: MetricWriter, tmp_path: Path
) -> None:
    """Images of real numbers have no 8-bit pixels that features could be of."""
    path = tmp_path / "real.npz"
    np.savez(path, images=np.zeros((20, 4, 4, 1), np.float32))
    asked = DatasetSpec(source=str(path), value_range=(0.0, 1.0), labels="none")
    ref = ingest_as_asked(asked, store, tmp_path / "other")
    dataset = DatasetSpec(source="real", sha256=ref.sha256)
    with pytest.raises(BadInputError, match=r"real holds float32 .*8-bit images"):
        Evaluated(store, "quality", spec_of(store, dataset=dataset)).begin(metrics)


def test_statistics_of_others_are_compared_with_and_fixed_once(
    store: MemoryStore, metrics: MetricWriter, tmp_path: Path
) -> None:
    """Those that one evaluation leaves give another one the distance from the images themselves."""
    first = Evaluated(store, "quality", spec_of(store))
    first.compute(evaluation := first.begin(metrics))
    evaluation.run()
    path = tmp_path / "statistics.npz"
    path.write_bytes(store.get(JobPaths("quality").reference_statistics).body)
    spec = spec_of(store, statistics=StatisticsSpec(file=str(path)))
    second = Evaluated(store, "more", spec)
    evaluation = second.begin(metrics)
    evaluation.run()
    scores = second.result()["scores"]
    expected = scores["fd-pixels"]["value"]
    assert scores["fd-statistics-pixels"]["value"] == pytest.approx(expected, rel=1e-9)
    path.write_bytes(b"another")
    with pytest.raises(BadInputError, match="it is another file"):
        second.begin(metrics).run()


def test_a_training_is_no_set_to_evaluate(store: MemoryStore, metrics: MetricWriter) -> None:
    """Its images are real; as what is compared against they are welcome."""
    train = {
        "kind": "train",
        "name": "t",
        "dataset": {"source": "blobs", "sha256": store.sha256},  # type: ignore[attr-defined]
        "training": {"num_steps": 1},
    }
    store.put(JobPaths("t").spec, json.dumps(train).encode())
    with pytest.raises(BadInputError, match=r"of\.job: t is a train job"):
        Evaluated(store, "q", spec_of(store, of=SetRef(job="t"))).begin(metrics)
    fields = {"against": SetRef(job="t"), "dataset": None}
    evaluation = Evaluated(store, "p", spec_of(store, **fields)).begin(metrics)
    assert (evaluation.sets[1].name, evaluation.sets[1].num_images) == ("blobs", 200)


def test_of_a_trainings_checkpoint_it_puts_a_point_of_the_curve_once(
    store: MemoryStore, metrics: MetricWriter, tmp_path: Path
) -> None:
    """An attempt that died after it must not give the point another time, or another value."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "ema.safetensors").write_bytes(b"weights")
    commit = CheckpointStore(store, JobPaths("t")).commit(4, files, 1, {})
    job = Evaluated(store, "quality", spec_of(store))
    origin = Origin(parent="t", step="at-4", at_step=4)
    job.attempt = dataclasses.replace(job.attempt, origin=origin)
    evaluation = job.begin(metrics)
    job.compute(evaluation)
    evaluation.run()
    (first,) = read_curve(store, "t")
    assert first.value_of("kid") == job.result()["scores"]["kid-pixels"]["value"]
    assert (first.step, first.job_id, first.sha256) == (4, "quality", commit.sha256)
    store.advance(60)
    job.begin(metrics).run()
    assert read_curve(store, "t") == [first]
