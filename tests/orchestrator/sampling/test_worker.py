"""A worker draws only what it can draw as was decided, and says why where it cannot."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.config import ConfigError, Family, SamplingConfig
from ddpm.training.checkpoint import load_model
from orchestrator.artifacts.checkpoints.resolve import fetch_model, resolve_model
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.errors import BadInputError
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import plan_shards
from orchestrator.lifecycle.causes import reason_of
from orchestrator.lifecycle.state import Reason
from orchestrator.sampling.drawing import DrawnShard
from orchestrator.sampling.network import recorded_sampling
from orchestrator.sampling.prepared import LoadedModel, PreparedSampler, propose
from orchestrator.sampling.setup import StoreSetup
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from tests.support.compiled_worker import MODEL_JOB, put_model
from tests.support.fakes import MemoryStore


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """A store with a model of 50 timesteps in it."""
    store = MemoryStore()
    put_model(store, tmp_path)
    return store


def worker_of(store: MemoryStore, **sampling: Any) -> PreparedSampler:
    """Return a worker that is to draw in float32."""
    return PreparedSampler(store, setup_of(store, **sampling), "1-worker-0", None)


def setup_of(store: MemoryStore, **sampling: Any) -> StoreSetup:
    """Return what such a worker is told."""
    chosen = {
        "num_steps": 4, "microbatch_size": 2, "precision": "float32", "compile": False, **sampling
    }  # fmt: skip
    spec = SampleJob(
        kind="sample",
        name="set",
        model=ModelRef(job=MODEL_JOB),
        num_samples=4,
        sampling=SamplingConfig(**chosen),
        shard_size=2,
    )
    return StoreSetup(
        store_uri="",
        job_id="set",
        attempt=1,
        spec=spec,
        model=resolve_model(store, spec.model),
        cpus=1,
        uses_gpu=False,
    )


def test_more_steps_than_the_model_has_are_told_before_anything_is_drawn(
    store: MemoryStore,
) -> None:
    """No attempt after this one would fare better."""
    with pytest.raises(ConfigError, match="51") as caught:
        worker_of(store, num_steps=51)
    assert reason_of(caught.value) is Reason.BAD_INPUT


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("bits_version",), 0, "computes other bits"),
        (("compute", "device_kind"), "cuda", "begun on cuda"),
        (("model", "commit_sha256"), "0" * 64, "submit under a new --id"),
    ],
)
def test_worker_refuses_what_it_cannot_honour(
    store: MemoryStore, keys: tuple[str, ...], value: str, told: str
) -> None:
    """A set that was begun otherwise would not be one set any more."""
    worker = worker_of(store)
    decisions: dict[str, Any] = deepcopy(dict(worker.proposal.values))
    inner = decisions
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    with pytest.raises(BadInputError, match=told):
        worker.begin(Decisions(decisions))


def test_other_hardware_is_remarked_and_not_in_the_way(store: MemoryStore) -> None:
    """The images may differ in their last bits then, and a reader should know."""
    worker = worker_of(store)
    decisions = worker.proposal
    assert worker.begin(decisions).remarks == []
    other = Decisions({**decisions.values, "hardware": "a machine of long ago"})
    (remark,) = worker.begin(other).remarks
    assert "a machine of long ago" in remark


def test_a_worker_draws_and_commits(store: MemoryStore) -> None:
    """From the checkpoint in the store to images in the store, in one process."""
    prepared = worker_of(store)
    worker = prepared.begin(prepared.proposal)
    task, watch = ShardTask(plan_shards(4, 2)[1]), Watch()
    drawn = worker.compute(task, watch)
    assert isinstance(drawn, DrawnShard)
    assert watch.steps_drawn == 4
    event = worker.keep(task, drawn)
    assert (event.kind, event.is_own) == ("committed", True)
    assert not worker.keep(task, worker.compute(task, watch)).is_own
    data = [key for key in store.objects if key.startswith("jobs/set/attempts/1/data/")]
    assert len(data) == 1


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_other_families_are_drawn_by_the_same_fleet(family: Family, tmp_path: Path) -> None:
    """In one step; a second worker draws the same images, and more steps are refused."""
    store = MemoryStore()
    put_model(store, tmp_path, family)
    task, pixels = ShardTask(plan_shards(4, 2)[1]), []
    for _ in range(2):
        prepared, watch = worker_of(store, num_steps=1), Watch()
        worker = prepared.begin(prepared.proposal)
        drawn = worker.compute(task, watch)
        assert isinstance(drawn, DrawnShard)
        assert watch.steps_drawn == 1
        assert worker.keep(task, drawn).kind == "committed"
        pixels.append(drawn.pixels)
    assert np.array_equal(pixels[0], pixels[1])
    with pytest.raises(ConfigError, match="num_steps must be at most 1"):
        worker_of(store, num_steps=4)


def test_weighing_the_work_leaves_the_weights_as_they_are(store: MemoryStore) -> None:
    """Another worker's proposal may be the one that is taken, with another precision."""
    setup = setup_of(store, precision="bf16", compile="auto")
    loaded = LoadedModel.load(store, setup)
    assert propose(setup, loaded).values
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_a_set_records_the_variance_that_it_is_drawn_with(store: MemoryStore) -> None:
    """A later version may have another default; this set keeps its own."""

    def variance(**sampling: Any) -> object:
        proposal = worker_of(store, **sampling).proposal
        return SET_DECISIONS.of(proposal.values).sampling["variance"]

    assert variance() == "fixed_small"
    assert variance(num_steps=50) == "fixed_large"
    assert variance(method="ddim") is None


def test_a_set_of_an_earlier_version_keeps_the_variance_of_its_time(store: MemoryStore) -> None:
    """It left the variance open and took the model's; a repaired shard must fit its neighbours."""
    setup = setup_of(store)
    decided = SET_DECISIONS.of(worker_of(store).proposal.values)
    old = dict(decided.sampling)
    for field in ("keep_epsilon",):
        del old[field]
    old["variance"] = None
    _, info = load_model(fetch_model(store, setup.model).folder)
    assert recorded_sampling(replace(decided, sampling=old), info).variance == "fixed_large"
    assert recorded_sampling(decided, info).variance == "fixed_small"
