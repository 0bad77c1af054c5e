"""Images come in an order that is a pure function of (seed, step), each once an epoch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddpm.config import ConfigError
from ddpm.errors import ImageDatasetError
from ddpm.training.data import BatchReader, ImageDataset, to_float
from ddpm.training.order import BatchOrder, rank_positions


def _pixels(num_images: int = 10) -> NDArray[np.uint8]:
    return np.arange(num_images * 12, dtype=np.uint32).astype(np.uint8).reshape(-1, 2, 2, 3)


def _dataset(num_images: int = 10) -> ImageDataset:
    return ImageDataset(_pixels(num_images), np.arange(num_images))


@given(num_images=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**63 - 1))
def test_every_image_comes_once_an_epoch(num_images: int, batch_size: int, seed: int) -> None:
    """Also when a batch is larger than an epoch or straddles two."""
    order = BatchOrder(num_images, batch_size, seed)
    num_steps = -(-3 * num_images // batch_size)
    stream = np.concatenate([order.indices(step) for step in range(num_steps)])
    for epoch in range(3):
        images = stream[epoch * num_images : (epoch + 1) * num_images]
        assert sorted(images) == list(range(num_images))


def test_order_does_not_depend_on_what_was_asked_before() -> None:
    """A resumed run asks for step 7 first and must get what the first run got there."""
    going_on, resumed = BatchOrder(10, 4, seed=3), BatchOrder(10, 4, seed=3)
    seen = [going_on.indices(step) for step in range(9)]
    assert resumed.indices(7).tolist() == seen[7].tolist()
    assert resumed.indices(2).tolist() == seen[2].tolist()


def test_order_is_pinned() -> None:
    """A job may be resumed years later, with another numpy; the order must still be this one."""
    assert BatchOrder(10, 10, seed=0).indices(0).tolist() == PINNED_ORDER
    assert BatchOrder(10, 10, seed=1).indices(0).tolist() != PINNED_ORDER
    assert BatchOrder(10, 10, seed=0).indices(1).tolist() != PINNED_ORDER


PINNED_ORDER = [8, 7, 4, 2, 6, 5, 9, 0, 1, 3]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_workers_share_the_global_batch(world_size: int) -> None:
    """Whatever their number, the workers together see the same positions."""
    parts = [rank_positions(6, rank, world_size) for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == list(range(6))


def test_batch_that_the_workers_do_not_divide_is_a_config_error() -> None:
    """Unequal parts would weigh some images more than others."""
    with pytest.raises(ConfigError, match=r"global_batch_size must be divisible by .* 4, not 6"):
        rank_positions(6, 0, 4)


def test_split_is_disjoint_whole_and_stable() -> None:
    """Bits per dimension of the held-out images mean nothing if training saw one of them."""
    dataset = _dataset()
    train, holdout = dataset.split(0.3)
    assert (len(train), len(holdout)) == (7, 3)
    assert sorted([*train.members, *holdout.members]) == list(range(10))
    assert dataset.split(0.3)[1].members.tolist() == holdout.members.tolist()
    numbers = np.array([2, 0])
    expected = dataset.images[holdout.members[numbers]]
    assert torch.equal(holdout.read(numbers), torch.from_numpy(expected))


def test_nothing_is_held_out_at_zero_and_all_is_refused() -> None:
    """An empty training set would only fail later, as a division by zero."""
    assert len(_dataset().split(0.0)[1]) == 0
    with pytest.raises(ConfigError, match="holdout_fraction"):
        _dataset().split(0.99)


def test_pixels_map_to_minus_one_and_one() -> None:
    """The convention of the whole program: x / 127.5 - 1, channels first."""
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    x_start = to_float(images)
    assert x_start.shape == (1, 3, 1, 1)
    assert x_start.flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])


def test_file_is_mapped_not_read(tmp_path: Path) -> None:
    """A data set may be larger than the memory."""
    path = tmp_path / "images.npy"
    np.save(path, _pixels())
    dataset = ImageDataset.open(path)
    assert isinstance(dataset.images, np.memmap)
    assert dataset.image_shape == (3, 2, 2)
    assert len(dataset) == 10


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 4, 4, 1), dtype=np.complex64),
        np.zeros((2, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 4, 1), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused_by_name(tmp_path: Path, array: np.ndarray) -> None:
    """The message has to name the file, since a job may read many."""
    path = tmp_path / "images.npy"
    np.save(path, array)
    with pytest.raises(ImageDatasetError, match=r"images\.npy: must hold numbers"):
        ImageDataset.open(path)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_unreadable_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """A torn download is the usual cause; pickled objects are never loaded."""
    path = tmp_path / "images.npy"
    path.write_bytes(content)
    with pytest.raises(ImageDatasetError, match=r"images\.npy: can't be read"):
        ImageDataset.open(path)
    with pytest.raises(ImageDatasetError, match="can't be read"):
        ImageDataset.open(tmp_path / "missing.npy")


def test_reader_gives_each_step_its_images() -> None:
    """Reading ahead must not shift the images, also when a step is asked for out of turn."""
    dataset = _dataset()
    order, positions = BatchOrder(10, 4, seed=1), rank_positions(4, 1, 2)
    with BatchReader(dataset, order, positions, torch.device("cpu")) as reader:
        for step in (0, 1, 2, 7, 8, 3):
            expected = dataset.read(BatchOrder(10, 4, seed=1).indices(step)[positions])
            assert torch.equal(reader.batch(step).images, expected)


def test_labels_follow_their_images_through_split_and_batches() -> None:
    """A class that belongs to another image would teach the network nonsense."""
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    classes = np.arange(10, dtype=np.int64) * 3
    labelled = ImageDataset(images, np.arange(10), classes)
    for part in labelled.split(0.3):
        seen = np.arange(len(part))
        labels = part.labels(seen)
        assert labels is not None
        assert labels.tolist() == [3 * int(image) for image in part.read(seen).flatten()]
    order, positions = BatchOrder(10, 4, seed=1), rank_positions(4, 0, 1)
    with BatchReader(labelled, order, positions, torch.device("cpu")) as reader:
        batch = reader.batch(2)
    assert batch.labels is not None
    assert batch.labels.tolist() == [3 * int(image) for image in batch.images.flatten()]


def test_set_without_labels_says_so() -> None:
    """An unconditional training needs none."""
    assert _dataset().labels(np.arange(3)) is None


def test_labels_that_do_not_fit_the_images_are_refused(tmp_path: Path) -> None:
    """One label too few would shift all others."""
    np.save(tmp_path / "images.npy", np.zeros((4, 2, 2, 1), np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(3, np.int64))
    with pytest.raises(ImageDatasetError, match=r"labels\.npy: must hold int64 \(4,\)"):
        ImageDataset.open(tmp_path / "images.npy", tmp_path / "labels.npy")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32"])
def test_values_of_any_type_reach_the_network_in_minus_one_to_one(
    dtype: str, tmp_path: Path
) -> None:
    """Sixteen bits keep their steps; eight stay eight until they are on the device."""
    values = np.linspace(-20, 80, 6 * 4).astype(dtype) if dtype != "uint8" else np.arange(24) * 10
    images = values.astype(dtype).reshape(6, 2, 2, 1)
    np.save(tmp_path / "x.npy", images)
    value_range = (0.0, 255.0) if dtype == "uint8" else (-20.0, 65535.0)
    dataset = ImageDataset.open(tmp_path / "x.npy", value_range=value_range)
    read = dataset.read(np.arange(6))
    assert read.dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    low, high = value_range
    expected = (images.astype(np.float64) - low) / (high - low) * 2 - 1
    found = to_float(read).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)
    is_float = dtype.startswith("float")
    assert dataset.num_levels == (None if is_float else round(high - low) + 1)
