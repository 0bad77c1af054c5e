"""Labels: numbered the same everywhere, named by their content, proved when they are read."""

from pathlib import Path

import numpy as np
import pytest

from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.labels import (
    ClassLabels,
    describe_classes,
    fetch_labels,
    labels_from_names,
    labels_from_numbers,
    store_labels,
    with_labels,
)
from orchestrator.artifacts.datasets.refs import DatasetRef, describe
from orchestrator.errors import DatasetError
from tests.support.fakes import MemoryStore

LABELS = labels_from_names(["dog", "cat", "dog", "\u00e4ffle", "cat", "dog"])


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def images(tmp_path: Path, store: MemoryStore) -> DatasetRef:
    """Six images in the store."""
    np.save(tmp_path / "x.npy", np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1))
    return ingest(str(tmp_path / "x.npy"), store, tmp_path / "cache")


def test_classes_are_numbered_in_the_order_of_their_names() -> None:
    """The number of a class must not depend on which of its images comes first."""
    assert LABELS.names == ("cat", "dog", "\u00e4ffle")
    assert LABELS.values.tolist() == [1, 0, 1, 2, 0, 1]
    assert LABELS.counts == (2, 3, 1)


def test_hash_of_labels_is_pinned() -> None:
    """Jobs pin it: another version of this code must find the same."""
    assert LABELS.sha256 == "5aaf23668f99ee4c146cf530f7a0733ef16496fd41bcf7dc5391e76de97c5439"
    renamed = ClassLabels(LABELS.values, ("a", "b", "c"))
    assert renamed.sha256 != LABELS.sha256


def test_labelled_set_holds_its_images_by_name(
    images: DatasetRef, store: MemoryStore, tmp_path: Path
) -> None:
    """The images are stored once, whatever labels they are used with."""
    before = set(store.objects)
    ref = with_labels(images, LABELS)
    store_labels(ref, LABELS, store)
    store_labels(ref, LABELS, store)
    folder = f"datasets/{ref.sha256}/"
    assert set(store.objects) - before == {f"{folder}labels.npy", f"{folder}manifest.json"}
    assert describe(store, ref.sha256) == ref
    assert (ref.images, ref.num_classes) == (images.sha256, 3)
    path = fetch_labels(store, describe(store, ref.sha256), tmp_path / "cache")
    assert path is not None
    assert np.load(path).tolist() == LABELS.values.tolist()
    assert fetch_labels(store, images, tmp_path / "cache") is None


def test_damaged_labels_are_found_when_they_are_read(
    images: DatasetRef, store: MemoryStore, tmp_path: Path
) -> None:
    """A training on swapped labels would look healthy."""
    ref = with_labels(images, LABELS)
    store_labels(ref, LABELS, store)
    key = f"datasets/{ref.sha256}/labels.npy"
    store.put(key, store.get(key).body[:-1] + b"\1")
    with pytest.raises(DatasetError, match="another SHA-256"):
        fetch_labels(store, ref, tmp_path / "cache")
    store.put(key, b"")
    with pytest.raises(DatasetError, match="cannot be read"):
        fetch_labels(store, ref, tmp_path / "cache")


def test_labels_must_be_as_many_as_the_images(images: DatasetRef) -> None:
    """Nobody can say which image has none."""
    with pytest.raises(DatasetError, match="6 images but 2 labels"):
        with_labels(images, labels_from_names(["a", "b"]))


@pytest.mark.parametrize(
    "numbers",
    [np.array([0.5, 1.0]), np.array([[0], [1]]), np.array([-1, 0]), np.array([0, 1 << 40])],
)
def test_numbers_that_are_no_classes_are_refused(numbers: np.ndarray) -> None:
    """They would become an enormous embedding, or an index from the end."""
    with pytest.raises(DatasetError, match=r"y\.npy holds labels"):
        labels_from_numbers(numbers, "y.npy")


def test_few_classes_are_told_by_name_and_many_by_their_range() -> None:
    """A plan is one line, with two classes or a thousand."""
    ref = DatasetRef("0" * 64, 6, 2, 2, 1, "x")
    assert describe_classes(with_labels(ref, LABELS)) == "3 classes: cat 2, dog 3, \u00e4ffle 1"
    many = ClassLabels(np.arange(20).repeat(2)[:-1], tuple(map(str, range(20))))
    told = describe_classes(with_labels(DatasetRef("0" * 64, 39, 2, 2, 1, "x"), many))
    assert told == "20 classes of 1 to 2 images: 0 2, 1 2, 2 2, ..."
