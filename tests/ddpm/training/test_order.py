"""Images drawn from a window of blocks: each once an epoch, the same wherever a run goes on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.training.data import BatchReader, ImageDataset
from ddpm.training.order import BlockOrder, rank_positions

SIZES = np.array([3, 0, 5, 4, 2])
# As drawn on the day the order was made: it is a promise.
PINNED = [10, 9, 2, 0, 8, 1, 11, 12, 13, 4, 5, 7, 3, 6]


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    window=st.integers(1, 9),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_image_comes_once_an_epoch(
    sizes: list[int], window: int, batch_size: int, seed: int
) -> None:
    """Blocks may be of any size, of none where all their images are held out."""
    order = BlockOrder(np.array(sizes), window, batch_size, seed)
    num_images = sum(sizes)
    num_steps = -(-3 * num_images // batch_size)
    stream = np.concatenate([order.indices(step) for step in range(num_steps)])
    for epoch in range(3):
        images = stream[epoch * num_images : (epoch + 1) * num_images]
        assert sorted(images) == list(range(num_images))


@given(step=st.integers(0, 60), window=st.integers(1, 5), batch_size=st.integers(1, 20))
def test_order_does_not_depend_on_what_was_asked_before(
    step: int, window: int, batch_size: int
) -> None:
    """A resumed run asks for that step first and must get what the first run got there."""
    resumed = BlockOrder(SIZES, window, batch_size, 3).indices(step)
    unbroken = BlockOrder(SIZES, window, batch_size, 3)
    for before in range(step):
        unbroken.indices(before)
        unbroken.blocks_from(before)
    np.testing.assert_array_equal(unbroken.indices(step), resumed)


@given(step=st.integers(0, 40), window=st.integers(1, 5), batch_size=st.integers(1, 20))
def test_blocks_of_a_step_hold_its_images_and_the_next_window_comes_behind(
    step: int, window: int, batch_size: int
) -> None:
    """What is not named there would be fetched while the step waits."""
    order = BlockOrder(SIZES, window, batch_size, 0)
    bounds = np.concatenate([[0], np.cumsum(SIZES)])
    blocks = order.blocks_from(step)
    used = np.searchsorted(bounds, order.indices(step), side="right") - 1
    assert set(used.tolist()) <= set(blocks)
    if batch_size == 1:
        assert len(blocks) <= 2 * window  # what the cache must hold at a time


def test_images_of_a_window_come_together_and_in_any_order() -> None:
    """So many blocks at hand are enough, and within them images are mixed."""
    sizes = np.full(6, 100)
    stream = BlockOrder(sizes, 2, 600, 0).indices(0) // 100
    for window in range(3):
        part = stream[200 * window : 200 * window + 200]
        assert len(set(part.tolist())) == 2
        assert (np.diff(part) != 0).sum() > 50


def test_order_is_pinned() -> None:
    """A training that goes on with a newer version must see the images it would have seen."""
    assert BlockOrder(SIZES, 2, 14, 0).indices(0).tolist() == PINNED
    assert BlockOrder(SIZES, 2, 14, 0).indices(1).tolist() != PINNED
    assert BlockOrder(SIZES, 2, 14, 1).indices(0).tolist() != PINNED


class _Blocks:
    """Five blocks of images that hold their numbers."""

    shape = (14, 1, 1, 1)
    dtype = np.dtype(np.uint8)
    bounds = np.concatenate([[0], np.cumsum(SIZES)])

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        return numbers.astype(np.uint8).reshape(-1, 1, 1, 1)

    def expect(self, blocks: tuple[int, ...]) -> None:
        """Have all at hand."""


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_images_held_out_are_not_drawn(fraction: float) -> None:
    """The split is that of a set which fits, whatever the order."""
    whole = ImageDataset(np.arange(14, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(14))
    blocks = ImageDataset.of_blocks(_Blocks(), window=2)
    train, holdout = blocks.split(fraction)
    assert train.members.tolist() == whole.split(fraction)[0].members.tolist()
    seen = train.read(train.order(len(train), 0).indices(0)).ravel().tolist()
    assert sorted(seen) == train.members.tolist()
    assert not set(seen) & set(holdout.members.tolist())


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_workers_together_read_what_one_would(world_size: int) -> None:
    """Each has its part of every step, in place: the gradient's sum is over the same images."""

    def read(rank: int, workers: int) -> list[list[int]]:
        images = ImageDataset.of_blocks(_Blocks(), window=2)
        positions = rank_positions(6, rank, workers)
        order = images.order(6, seed=1)
        with BatchReader(images, order, positions, torch.device("cpu")) as reader:
            return [reader.batch(step).images.ravel().tolist() for step in range(7)]  # 3 epochs

    parts = [read(rank, world_size) for rank in range(world_size)]
    together = [[number for part in step for number in part] for step in zip(*parts, strict=True)]
    assert together == read(0, 1)
