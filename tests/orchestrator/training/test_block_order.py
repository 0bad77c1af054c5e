"""Trainings on a set that the node's cache cannot hold: resumed to the bit, decided once a job."""

import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined]  # torch exports it late
from torch.multiprocessing.spawn import spawn

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.artifacts.datasets import preparing
from orchestrator.artifacts.datasets.chunk_cache import CachedChunks, decide_window
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.node_cache import LIMIT_VARIABLE
from orchestrator.cli import again
from orchestrator.cli.again import extend_command
from orchestrator.errors import DatasetError
from orchestrator.store.keys import JobPaths
from orchestrator.training import images
from tests.support.fakes import MemoryStore
from tests.support.trainings import (
    TRAIN,
    begun,
    submit_training,
    train_to_the_end,
    weights_of,
    work,
)
from tests.support.verbs import Verbs

BLOCKS = TRAIN.replace("holdout_fraction: 0.25", "holdout_fraction: 0.25, shuffle: blocks")
CHUNK = 2 * 64 + 128  # bytes of a chunk of two images; the set has eight


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """An empty store; sets are cut into chunks of two images."""
    monkeypatch.setattr(again, "ensure_running", lambda _around, _say: False)
    monkeypatch.setattr(preparing, "CHUNK_BYTES", 2 * 64)
    return MemoryStore()


def _node(patch: pytest.MonkeyPatch, folder: Path, num_chunks: int) -> None:
    """Go on on a node with an empty cache for so many chunks."""
    patch.setattr(images, "cache_folder", lambda name: folder / name)
    patch.setenv(LIMIT_VARIABLE, str(num_chunks * CHUNK / (1 << 30)))


def _window(store: MemoryStore, job_id: str) -> int | None:
    decisions = json.loads(store.get(JobPaths(job_id).decisions).body)
    return decisions.get("shuffle_window")  # type: ignore[no-any-return]


def test_training_in_blocks_goes_on_to_the_bit_on_any_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """The window is the job's, not that of the node on which it goes on in the middle of one."""
    _node(monkeypatch, tmp_path / "a", 7)
    submit_training(tmp_path, store, "whole", BLOCKS, "training.num_steps=7")
    train_to_the_end(store, "whole")
    submit_training(tmp_path, store, "t", BLOCKS)
    train_to_the_end(store, "t")
    _node(monkeypatch, tmp_path / "b", 1000)
    Verbs(monkeypatch, store)(extend_command, ("t", "--num-steps", "7", "--id", "t7"))
    train_to_the_end(store, "t7")
    assert _window(store, "whole") == _window(store, "t") == _window(store, "t7") == 1
    assert weights_of(store, "t7", 7) == weights_of(store, "whole", 7)


@pytest.mark.slow
def test_set_that_fits_is_shuffled_in_full_whatever_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """Blocks are for sets that do not fit; all others keep their bits."""
    _node(monkeypatch, tmp_path / "a", 1000)
    for job_id, text in (("full", TRAIN), ("blocks", BLOCKS)):
        submit_training(tmp_path, store, job_id, text)
        train_to_the_end(store, job_id)
    assert (_window(store, "full"), _window(store, "blocks")) == (None, 0)
    assert weights_of(store, "full", 4) == weights_of(store, "blocks", 4)
    _node(monkeypatch, tmp_path / "b", 7)
    submit_training(tmp_path, store, "other", BLOCKS)
    train_to_the_end(store, "other")
    assert weights_of(store, "full", 4) != weights_of(store, "other", 4)


def test_set_that_does_not_fit_says_how_to_train_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """A larger cache, or another order: the choice changes bits, so it is the user's."""
    _node(monkeypatch, tmp_path / "a", 7)
    submit_training(tmp_path, store, "t", TRAIN)
    with pytest.raises(DatasetError, match=f"{LIMIT_VARIABLE} .* dataset.shuffle: blocks"):
        work(begun(store, "t"))


@pytest.mark.slow
def test_workers_of_a_node_share_chunks_and_learn_what_one_learns(tmp_path: Path) -> None:
    """Two of them give the same bits each time, and the losses of one but for the order of sums."""
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
    np.save(tmp_path / "x.npy", images)
    for name, world_size in (("one", 1), ("two", 2), ("again", 2)):
        spawn(_train_in_blocks, (world_size, tmp_path, name), nprocs=world_size)
    one, two, again_ = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two", "again")
    )
    assert torch.equal(two["weights"], again_["weights"])
    assert torch.equal(two["losses"], again_["losses"])
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-4, atol=1e-6)


def _train_in_blocks(rank: int, world_size: int, folder: Path, name: str) -> None:
    """Train on a set of eight chunks through a cache for five, which the ranks share."""
    torch.set_num_threads(1)
    os.environ[LIMIT_VARIABLE] = str(5 * (8 * 64 + 128) / (1 << 30))
    pytest.MonkeyPatch().setattr(preparing, "CHUNK_BYTES", 8 * 64)  # of this process alone
    store = MemoryStore()
    ref = ingest(str(folder / "x.npy"), store, folder / f"scratch-{rank}")
    rendezvous = FileStore(str(folder / f"store-{name}"), world_size)
    dist.init_process_group("gloo", store=rendezvous, rank=rank, world_size=world_size)
    manifest, cache = read_manifest(store, ref.sha256), folder / f"cache-{name}"
    state = TrainState(
        unet_config=UNetConfig(channels=8, channel_multipliers=(1, 2), num_res_blocks=1),
        diffusion_config=DiffusionConfig(num_timesteps=100),
        config=TrainingConfig(num_steps=12, global_batch_size=6, learning_rate=1e-3),
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )
    with closing(CachedChunks(store, manifest, cache)) as chunks:
        window = decide_window(manifest, cache)
        dataset = ImageDataset.of_blocks(chunks, window, None, ref.value_range)
        losses = [[m.loss, m.grad_norm] for m in train_steps(state, dataset, until_step=12)]
    assert window == 1
    if rank == 0:
        found = {"losses": torch.tensor(losses), "weights": state.parameters.values}
        torch.save(found, folder / f"{name}.pt")
    dist.destroy_process_group()
