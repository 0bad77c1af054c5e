"""A likelihood is that of the model and the split that were asked for, and goes on where it was."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.config import DiffusionConfig
from ddpm.process.code_length import discretized_gaussian_log_likelihood
from ddpm.process.gaussian import GaussianDiffusion, model_log_variance
from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.artifacts.datasets.node_cache import LIMIT_VARIABLE
from orchestrator.attempts.attempt import Attempt
from orchestrator.client.plan import plan_of
from orchestrator.client.plan_forms import LikelihoodPlan
from orchestrator.errors import BadInputError, DatasetError, ShardDamagedError
from orchestrator.evaluation.likelihood_driver import Likelihood
from orchestrator.evaluation.likelihood_worker import (
    LikelihoodSetup,
    LikelihoodWorker,
    PreparedLikelihood,
    open_split,
)
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.units import Shard
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import Placement
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.sections import DatasetSpec, ModelRef
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.writer import MetricWriter
from tests.support.compiled_worker import MODEL_JOB, put_model
from tests.support.fakes import MemoryStore
from tests.support.sample_sets import put_dataset

PLACEMENT = Placement(workers_by_node={"n": 1}, cpus_per_worker=1, gpus_per_worker=0.0)
DIFFUSION = GaussianDiffusion(DiffusionConfig(num_timesteps=50))  # of `put_model`


class Measured:
    """A likelihood in memory, computed by one worker."""

    def __init__(self, store: MemoryStore, job_id: str, spec: LikelihoodJob) -> None:
        self.store, self.spec, self.job_id = store, spec, job_id
        store.put(JobPaths(job_id).spec, spec.model_dump_json().encode())
        record = RecordStore(store).read(job_id).record
        record = dataclasses.replace(record, placement=PLACEMENT, attempt=1)
        self.attempt = Attempt(store, spec, record, 1)

    def worker(self) -> LikelihoodWorker:
        """Return a worker that is about to compute."""
        model = resolve_model(self.store, self.spec.model)
        setup = LikelihoodSetup(
            **vars(self.attempt.address), spec=self.spec, model=model, cpus=1, uses_gpu=False
        )
        prepared = PreparedLikelihood.load(self.store, setup, None)
        return prepared.begin(self.attempt.decide_once(prepared.proposal))

    def run(self, metrics: MetricWriter) -> tuple[Outcome, list[int]]:
        """Compute what is missing; return what came of it, and the shards that were computed."""
        job, worker, computed = Likelihood.begin(self.attempt, metrics), self.worker(), []
        for shard in job.plan:
            if not self.store.exists(JobPaths(self.job_id).bound(shard.index)):
                event = worker.keep(ShardTask(shard), worker.compute(ShardTask(shard), Watch()))
                assert event.is_own
                computed.append(shard.index)
        return job.run(), computed

    def result(self) -> dict[str, Any]:
        """Return what it left in the store."""
        return dict(json.loads(self.store.get(JobPaths(self.job_id).likelihood).body))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store with a model of 8 x 8 images and a data set of 120."""
    monkeypatch.setenv("DDPMCTL_CACHE", str(tmp_path / "machine"))
    store = MemoryStore()
    put_model(store, tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1)).astype(np.uint8)
    store.sha256 = put_dataset(store, tmp_path, pixels)  # type: ignore[attr-defined]
    return store


@pytest.fixture
def metrics(store: MemoryStore) -> Iterator[MetricWriter]:
    """Where the numbers go."""
    with MetricWriter(store, JobPaths("bits").attempt(1)) as writer:
        yield writer


def spec_of(store: MemoryStore, **fields: Any) -> LikelihoodJob:
    """A likelihood of the half of the images that was held out, under the untrained network."""
    sha256: str = store.sha256  # type: ignore[attr-defined]
    values: dict[str, Any] = {
        "model": ModelRef(job=MODEL_JOB, weights="model"),
        "dataset": DatasetSpec(source="bytes", holdout_fraction=0.5, sha256=sha256),
        "num_draws": 2,
        "shard_size": 25,
        **fields,
    }
    return LikelihoodJob(kind="likelihood", name="bits", **values)


def _expected(pixels: torch.Tensor) -> dict[str, float]:
    """Return the exact expectation where the network always says that there is no noise.

    Then x_0 is off by the noise alone, so each L_{t-1} is known, and L_0 is an integral over it.
    """
    schedule = DIFFUSION.schedule
    kept = schedule.alphas_cumprod.numpy()
    log_variance = model_log_variance(schedule, DIFFUSION.config.variance).numpy()
    ratio = schedule.posterior_log_variance_clipped.numpy() - log_variance
    off = (1.0 - kept) / kept
    shift = schedule.posterior_mean_coef1.numpy() ** 2 * off / np.exp(log_variance)
    terms = 0.5 * (np.exp(ratio) - 1.0 - ratio + shift) / math.log(2.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    scale, decoder = math.exp(0.5 * float(log_variance[0])), 0.0
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        mean = pixels + math.sqrt(off[0]) * node
        decoder -= weight * float(discretized_gaussian_log_likelihood(pixels, mean, scale).mean())
    return {"bpd_denoising": float(terms[1:].sum()), "bpd_decoder": decoder / math.log(2.0)}


def test_the_bound_is_the_exact_one_of_a_network_whose_error_is_known(
    store: MemoryStore, metrics: MetricWriter
) -> None:
    """An untrained network answers 0, so every term has a closed form; L_T, L_t, L_0 apart."""
    spec = spec_of(store, clip_denoised=False)
    outcome, computed = Measured(store, "bits", spec).run(metrics)
    assert computed == [0, 1, 2]
    held_out = open_split(store, spec.dataset, "held_out")
    pixels = held_out.read(np.arange(60)).permute(0, 3, 1, 2).double() / 127.5 - 1.0
    result = Measured(store, "bits", spec).result()
    means = result["means"]
    for name, value in _expected(pixels).items():
        assert abs(means[name] - value) < 4.5 * means[f"{name}_se"], name
    parts = means["bpd_prior"] + means["bpd_denoising"] + means["bpd_decoder"]
    assert means["bpd"] == pytest.approx(parts, rel=1e-12)
    assert outcome.message == (
        f"{means['bpd']:.4f} ± {means['bpd_se']:.4f} bits per dimension of 60 images"
    )
    assert (result["num_images"], result["num_draws"], result["split"]) == (60, 2, "held_out")
    assert result["curve"]["t"] == list(range(1, 50))
    assert result["model"]["job_id"] == MODEL_JOB


def test_it_goes_on_where_it_was_to_the_same_bits(
    store: MemoryStore, metrics: MetricWriter
) -> None:
    """A lost worker costs its shard, and the number does not know of it."""
    spec = spec_of(store, num_timesteps=5)
    job = Measured(store, "bits", spec)
    job.run(metrics)
    before = job.result()
    store.delete(JobPaths("bits").bound(1))
    assert job.run(metrics)[1] == [1]
    assert job.result() == before
    worker, shard = job.worker(), Shard(1, 25, 50)
    again = worker.keep(ShardTask(shard), worker.compute(ShardTask(shard), Watch()))
    assert (again.kind, again.is_own) == ("committed", False)


def test_a_stopped_worker_computes_nothing_more(store: MemoryStore) -> None:
    """It has a grace period of seconds."""
    worker, watch = Measured(store, "bits", spec_of(store)).worker(), Watch()
    watch.stop()
    task = ShardTask(Shard(0, 0, 25))
    assert worker.keep(task, worker.compute(task, watch)).kind == "halved"


def test_a_damaged_shard_is_not_averaged(store: MemoryStore, metrics: MetricWriter) -> None:
    """One flipped bit would move the number, unseen."""
    job = Measured(store, "bits", spec_of(store, num_timesteps=2))
    job.run(metrics)
    key = JobPaths("bits").bound(0)
    body = bytearray(store.get(key).body)
    body[len(body) // 2] ^= 1
    store.put(key, bytes(body))
    with pytest.raises(ShardDamagedError, match="delete it"):
        job.run(metrics)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"num_images": 61}, "split held_out has 60 images; ask for 60 at most"),
        ({"num_timesteps": 51}, "the model has 50 timesteps; ask for 50 at most"),
    ],
)
def test_more_than_there_is_is_refused_in_one_line(
    store: MemoryStore, metrics: MetricWriter, fields: dict[str, Any], problem: str
) -> None:
    """Before anything is computed, and with what there is."""
    with pytest.raises(BadInputError, match=problem):
        Measured(store, "bits", spec_of(store, **fields)).run(metrics)
    assert not store.exists(JobPaths("bits").bound(0))


def test_images_of_another_size_are_refused(
    store: MemoryStore, metrics: MetricWriter, tmp_path: Path
) -> None:
    """The network would take some of them without a word."""
    sha256 = put_dataset(store, tmp_path, np.zeros((9, 4, 4, 1), np.uint8))
    dataset = DatasetSpec(source="small", holdout_fraction=0.5, sha256=sha256)
    with pytest.raises(BadInputError, match="images 8 x 8 x 1, small has images 4 x 4 x 1"):
        Measured(store, "bits", spec_of(store, dataset=dataset)).run(metrics)


def test_a_split_without_images_says_so(store: MemoryStore) -> None:
    """A holdout_fraction of 0 leaves nothing to measure."""
    spec = spec_of(store)
    none_left = spec.dataset.model_copy(update={"holdout_fraction": 0.0})
    with pytest.raises(BadInputError, match="split held_out has no image"):
        spec.model_copy(update={"dataset": none_left}).count(100)


def test_the_plan_says_how_often_the_network_is_asked(store: MemoryStore) -> None:
    """It is what the time goes into."""
    plan = plan_of(spec_of(store, num_timesteps=10), store)
    assert isinstance(plan, LikelihoodPlan)
    assert (plan.images, plan.shards, plan.network_passes) == (60, 3, 60)
    assert "network_passes" not in plan_of(spec_of(store), store).facts()


def test_set_that_the_cache_cannot_hold_names_what_helps_a_measurement(
    store: MemoryStore,
    metrics: MetricWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no dataset.shuffle, so that must not be offered."""
    monkeypatch.setenv(LIMIT_VARIABLE, str(1000 / (1 << 30)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # with nothing in the machine's cache
    with pytest.raises(DatasetError, match=f"raise {LIMIT_VARIABLE} on the node") as caught:
        Measured(store, "bits", spec_of(store)).run(metrics)
    assert "shuffle" not in str(caught.value)
