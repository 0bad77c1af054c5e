"""Images in a memory map, or in blocks of which some are at hand, and batches of them."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm.config import ConfigError
from ddpm.errors import ImageDatasetError
from ddpm.training.order import SPLIT_STREAM, BatchOrder, BlockOrder, permutation

BYTE_RANGE = (0.0, 255.0)


class BlockImages(Protocol):
    """Images in blocks of neighbours, not all of which are at hand.

    Attributes:
        shape: (N, H, W, C).
        dtype: Of a value.
        bounds: (K + 1,) int64, the first image of each of the K blocks, and N.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    @property
    def bounds(self) -> NDArray[np.int64]: ...  # noqa: D102

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[Any]: ...

    def expect(self, blocks: tuple[int, ...]) -> None:
        """Bring blocks to hand that are needed soon, in order; let all others go."""


@dataclass(frozen=True)
class ImageDataset:
    """Images by number, read from a memory map or from blocks when asked for.

    Attributes:
        images: (N, H, W, C) of any type, the whole file, or blocks of it.
        members: (M,) int64, which of them belong to this data set.
        class_labels: (N,) int64, the class of each image of the whole file; None without labels.
        value_range: The values that become -1 and 1.
        window: Blocks that training draws images from at a time; 0 for all images at once.
    """

    images: NDArray[Any] | BlockImages
    members: NDArray[np.int64]
    class_labels: NDArray[np.int64] | None = None
    value_range: tuple[float, float] = BYTE_RANGE
    window: int = 0

    @classmethod
    def open(
        cls,
        path: Path,
        labels_path: Path | None = None,
        value_range: tuple[float, float] = BYTE_RANGE,
    ) -> Self:
        """Map a `.npy` file of (N, H, W, C) whole or floating-point numbers into memory.

        Args:
            path: The images.
            labels_path: A `.npy` file of (N,) int64, the class of each image; None without labels.
            value_range: The values that become -1 and 1.

        Raises:
            ImageDatasetError: A file is missing or holds something else.
        """
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ImageDatasetError(str(path), f"can't be read as .npy: {error}") from error
        if images.dtype.kind not in "uif" or images.ndim != 4 or 0 in images.shape:
            found = f"{images.dtype} {images.shape}"
            raise ImageDatasetError(str(path), f"must hold numbers (N, H, W, C), not {found}")
        labels = None if labels_path is None else _open_labels(labels_path, len(images))
        return cls(images, np.arange(len(images)), labels, value_range)

    @classmethod
    def of_blocks(
        cls,
        images: BlockImages,
        window: int,
        labels_path: Path | None = None,
        value_range: tuple[float, float] = BYTE_RANGE,
    ) -> Self:
        """Read images from blocks, and train on a window of so many of them at a time.

        Raises:
            ImageDatasetError: The file of labels is missing or holds something else.
        """
        labels = None if labels_path is None else _open_labels(labels_path, images.shape[0])
        return cls(images, np.arange(images.shape[0]), labels, value_range, window)

    def order(self, global_batch_size: int, seed: int) -> BatchOrder | BlockOrder:
        """Return which images make up the global batch of each step."""
        if self.window == 0 or isinstance(self.images, np.ndarray):
            return BatchOrder(len(self), global_batch_size, seed)
        sizes = np.diff(np.searchsorted(self.members, self.images.bounds))
        return BlockOrder(sizes, self.window, global_batch_size, seed)

    def expect(self, blocks: tuple[int, ...]) -> None:
        """Bring blocks to hand that are needed soon, in order; let all others go."""
        if not isinstance(self.images, np.ndarray):
            self.images.expect(blocks)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Return images by their number within this data set.

        Args:
            indices: (B,) int64 in [0, len(self)).

        Returns:
            (B, H, W, C) on the CPU: 8-bit images as uint8, all others as float32 in [-1, 1].
        """
        images = self.images[self.members[indices]]
        if images.dtype == np.uint8 and self.value_range == BYTE_RANGE:
            return torch.from_numpy(images)
        low, high = self.value_range
        scaled = (images.astype(np.float64) - low) * (2.0 / (high - low)) - 1.0
        return torch.from_numpy(scaled.astype(np.float32))

    @property
    def num_levels(self) -> int | None:
        """How many values a pixel may have; None for real numbers."""
        if self.images.dtype.kind == "f":
            return None
        low, high = self.value_range
        return round(high - low) + 1

    def labels(self, indices: NDArray[np.int64]) -> Tensor | None:
        """Return the classes of images by their number within this data set.

        Args:
            indices: (B,) int64 in [0, len(self)).

        Returns:
            (B,) int64, on the CPU; None for a set without labels.
        """
        if self.class_labels is None:
            return None
        return torch.from_numpy(self.class_labels[self.members[indices]])

    def split(self, holdout_fraction: float) -> tuple["ImageDataset", "ImageDataset"]:
        """Return (train, holdout), the same ones whenever the number of images is the same.

        Args:
            holdout_fraction: In [0, 1); 0 holds nothing out.

        Raises:
            ConfigError: The fraction is out of range or leaves nothing to train on.
        """
        num_holdout = round(len(self) * holdout_fraction)
        if not (0.0 <= holdout_fraction < 1.0 and num_holdout < len(self)):
            raise ConfigError("holdout_fraction", holdout_fraction, "in [0, 1), with images left")
        order = permutation(len(self), SPLIT_STREAM, 0, 0)
        holdout, train = np.sort(order[:num_holdout]), np.sort(order[num_holdout:])
        return (
            replace(self, members=self.members[train]),
            replace(self, members=self.members[holdout]),
        )


def _open_labels(path: Path, num_images: int) -> NDArray[np.int64]:
    try:
        labels: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageDatasetError(str(path), f"can't be read as .npy: {error}") from error
    if labels.dtype != np.int64 or labels.shape != (num_images,):
        found = f"{labels.dtype} {labels.shape}"
        raise ImageDatasetError(str(path), f"must hold int64 ({num_images},), not {found}")
    return labels


def to_float(images: Tensor) -> Tensor:
    """Return stored images as the network sees them.

    Args:
        images: (B, H, W, C) uint8, or float32 that is in [-1, 1] already.

    Returns:
        (B, C, H, W) float32 in [-1, 1], in the memory format channels_last.
    """
    if images.is_floating_point():
        return images.permute(0, 3, 1, 2)
    return (images.float() / 127.5 - 1.0).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Batch:
    """A worker's part of the global batch of one step.

    Attributes:
        images: (B, H, W, C) uint8, or float32 in [-1, 1].
        labels: (B,) int64, the class of each; None for a set without labels.
    """

    images: Tensor
    labels: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """Return it on a device, without waiting where the memory is pinned."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(self.images.to(device, non_blocking=True), labels)

    def pinned(self) -> "Batch":
        """Return it in memory that a CUDA device can copy from by itself."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return Batch(self.images.pin_memory(), labels)


class BatchReader:
    """Reads a worker's part of the global batch of each step, one step ahead, in a thread.

    For a CUDA device the images are pinned in the thread and copied without blocking, so that
    reading and copying overlap with computing.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        order: BatchOrder | BlockOrder,
        positions: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self._dataset = dataset
        self._order = order
        self._positions = positions
        self._device = device
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch-reader")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """Return this worker's images of a step, on the device, and begin to read the next."""
        ahead = self._ahead
        if ahead is None or ahead[0] != step:
            ahead = step, self._pool.submit(self._read, step)
        self._ahead = step + 1, self._pool.submit(self._read, step + 1)
        return ahead[1].result().to(self._device)

    def _read(self, step: int) -> Batch:
        if isinstance(self._order, BlockOrder):
            self._dataset.expect(self._order.blocks_from(step))
        indices = self._order.indices(step)[self._positions]
        batch = Batch(self._dataset.read(indices), self._dataset.labels(indices))
        return batch.pinned() if self._device.type == "cuda" else batch
