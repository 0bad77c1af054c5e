"""Data sets in the store: proved, written out, and removed only when nothing needs them."""

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.artifacts.datasets.export import export_dataset
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.proof import verify_dataset
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.refs import DatasetRef, describe
from orchestrator.client.garbage import collect_garbage
from orchestrator.client.stored_datasets import (
    delete_dataset,
    list_datasets,
    references_to_dataset,
)
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError, DatasetError, OrchestratorError
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 4, 3), np.uint8)


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def labelled(store: MemoryStore, tmp_path: Path) -> DatasetRef:
    """A set with labels."""
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=np.arange(12) % 3)
    return ingest(str(tmp_path / "x.npz"), store, tmp_path / "cache", labels="auto")


def test_set_with_labels_and_its_images_are_two_entries(
    store: MemoryStore, labelled: DatasetRef
) -> None:
    """They share their chunks, and each can be trained on."""
    assert {ref.sha256 for ref in list_datasets(store)} == {labelled.sha256, labelled.images}


def test_verify_names_every_damaged_chunk(store: MemoryStore, labelled: DatasetRef) -> None:
    """A bit that flipped in the store must be found before a training finds it."""
    assert verify_dataset(store, labelled).is_whole
    (key,) = (key for key in store.objects if key.startswith("datasets/chunks/"))
    body = store.get(key).body
    store.put(key, body[:-1] + bytes([body[-1] ^ 1]))
    report = verify_dataset(store, labelled)
    assert not report.is_whole
    assert key in report.problems[0]


def test_export_gives_back_values_and_labels(
    store: MemoryStore, labelled: DatasetRef, tmp_path: Path
) -> None:
    """And what was exported is the same set when it is taken in again."""
    for form in ("npz", "npy", "png", "tiff"):
        path = tmp_path / f"out-{form}"
        export_dataset(store, labelled, form, path)
        again = ingest(str(path), MemoryStore(), tmp_path / "cache")
        is_sorted_by_class = form in ("png", "tiff")
        assert (again.sha256 == labelled.images) != is_sorted_by_class
        assert again.num_images == 12
    with np.load(tmp_path / "out-npz") as arrays:
        np.testing.assert_array_equal(arrays["arr_0"], IMAGES)
        assert arrays["labels"].tolist() == [index % 3 for index in range(12)]
    with pytest.raises(BadInputError, match="exists"):
        export_dataset(store, labelled, "npz", tmp_path / "out-npz")


def test_floats_are_exported_as_they_came(store: MemoryStore, tmp_path: Path) -> None:
    """The range says what the network sees; the values stay the user's."""
    values = np.random.default_rng(0).normal(size=(5, 4, 4, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    reading = Reading(value_range="minmax")
    ref = ingest(str(tmp_path / "x.npy"), store, tmp_path / "cache", reading=reading)
    export_dataset(store, ref, "npy", tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), values)
    with pytest.raises(BadInputError, match="PNG cannot hold 12 channels of float32"):
        export_dataset(store, ref, "png", tmp_path / "out")


def test_set_that_is_needed_is_not_deleted(
    store: MemoryStore, labelled: DatasetRef, tmp_path: Path
) -> None:
    """A queued job would fail hours later."""
    images = describe(store, labelled.images)
    with pytest.raises(OrchestratorError, match="with labels refers to data set"):
        delete_dataset(store, images)
    spec = {
        "kind": "train",
        "name": "x",
        "dataset": {"source": "x.npz", "sha256": labelled.sha256},
        "training": {"num_steps": 1, "global_batch_size": 1},
    }
    job_id = submit_job(store, TrainJob.model_validate_json(json.dumps(spec))).job_id
    assert references_to_dataset(store, labelled) == [f"job {job_id}"]
    with pytest.raises(OrchestratorError, match=f"job {job_id} refers to data set"):
        delete_dataset(store, labelled)
    submit_job(store, TrainJob.model_validate_json(json.dumps(spec)))
    with pytest.raises(OrchestratorError, match=r"job \S+, job \S+ refer to data set"):
        delete_dataset(store, labelled)


def test_deleted_set_leaves_nothing(store: MemoryStore, labelled: DatasetRef) -> None:
    """Labels first, then the images that they were of."""
    images = describe(store, labelled.images)
    delete_dataset(store, labelled)
    assert [ref.sha256 for ref in list_datasets(store)] == [images.sha256]
    delete_dataset(store, images)
    assert not [key for key in store.objects if not key.startswith("datasets/prepared/")]
    with pytest.raises(DatasetError):
        describe(store, images.sha256)


def test_gc_removes_what_nobody_went_on_to_prepare(
    store: MemoryStore, labelled: DatasetRef
) -> None:
    """A killed submit of 100 GB must not stay for ever, nor go while it may still be resumed."""
    store.put("datasets/preparing/p/plan.json", b"{}")
    store.put("datasets/chunks/p/000000-x.npy", bytes(10))
    store.put(f"datasets/{'0' * 64}/labels.npy", bytes(10))
    assert collect_garbage(store).datasets.objects == 0
    store.advance(25 * 3600)
    assert collect_garbage(store, dry_run=True).datasets.objects == 3
    assert collect_garbage(store).datasets.size_bytes == 22
    assert verify_dataset(store, labelled).is_whole


def test_a_job_that_cannot_be_read_keeps_only_the_set_that_it_names(
    store: MemoryStore, labelled: DatasetRef, tmp_path: Path
) -> None:
    """One of them kept every set from being deleted."""
    np.savez(tmp_path / "y.npz", images=IMAGES[:5])
    other = ingest(str(tmp_path / "y.npz"), store, tmp_path / "cache")
    spec = {
        "kind": "train",
        "name": "x",
        "dataset": {"source": "x.npz", "sha256": labelled.sha256},
        "training": {"num_steps": 1, "global_batch_size": 1},
    }
    job_id = submit_job(store, TrainJob.model_validate_json(json.dumps(spec))).job_id
    key = JobPaths(job_id).spec
    body = {**json.loads(store.get(key).body), "format_version": 99}
    store.put(key, json.dumps(body).encode())
    with pytest.raises(OrchestratorError, match=rf"job {job_id} \(which cannot be read, but nam"):
        delete_dataset(store, labelled)
    assert delete_dataset(store, other).objects > 0
