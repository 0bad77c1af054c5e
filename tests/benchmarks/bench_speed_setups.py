"""The set-ups that `bench_speed` measures: a network's sizes, and how much work a turn is."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ddpm.compute import DeviceKind
from ddpm.config import UNetConfig
from orchestrator.specs.kinds import load_spec
from orchestrator.specs.train import TrainJob

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 1024
WEIGHT_DECAY, LEARNING_RATE, EMA_DECAY = 1e-2, 2e-4, 0.9999
GUIDANCE_SCALE, LABEL_DROPOUT = 1.5, 0.1

Task = Literal["sampling", "training"]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model's sizes, and how much work a turn is.

    Attributes:
        name: For the table and for `--only`.
        unet: The sizes.
        image_shape: (C, H, W).
        batch_size: Images that go through the network together.
        num_reverse_steps: Of a turn of sampling.
        num_training_steps: Of a turn of training.
    """

    name: str
    unet: UNetConfig
    image_shape: tuple[int, int, int]
    batch_size: int
    num_reverse_steps: int
    num_training_steps: int

    @property
    def images_per_pass(self) -> int:
        """Images that a step of sampling sends through the network: with guidance each twice."""
        return self.batch_size * (2 if self.unet.known_classes else 1)

    def labels(self, number: int) -> Tensor:
        """Return (number,) int64 on the device: the classes in turn."""
        return torch.arange(number, device=device_kind()) % self.unet.known_classes

    def num_steps(self, task: Task) -> int:
        """Return how often a turn runs the network over the batch."""
        return self.num_reverse_steps if task == "sampling" else self.num_training_steps

    def images_of(self, task: Task) -> int:
        """Return how many images a turn draws, or trains on."""
        return self.batch_size * (self.num_training_steps if task == "training" else 1)


def device_kind() -> DeviceKind:
    """Return what everything runs on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize() -> None:
    """Wait until the device has done what it was given."""
    if device_kind() == "cuda":
        torch.cuda.synchronize()


def setups(is_quick: bool) -> list[Setup]:
    """Return the set-ups: the CIFAR-10 model of Ho et al. 2020, also with classes, and the digits'.

    Turns are short and many: a machine that others share was seen to change its speed fourfold from
    one minute to the next, which sides that take turns of seconds share. But they are so long that
    most of a turn finds in the caches what it would in a long run, and not what others left there.
    """
    digits_job = load_spec(ROOT / "jobs" / "train.yaml")
    assert isinstance(digits_job, TrainJob)
    digits_unet = digits_job.model
    assert isinstance(digits_unet, UNetConfig)
    cifar = Setup(
        name="cifar10-16",
        unet=UNetConfig(),
        image_shape=(3, 32, 32),
        batch_size=16,
        num_reverse_steps=12,
        num_training_steps=3,
    )
    larger = replace(
        cifar, name="cifar10-64", batch_size=64, num_reverse_steps=4, num_training_steps=1
    )
    labelled = replace(
        cifar,
        name="cifar10-classes-16",
        unet=UNetConfig(num_classes=10),
        num_reverse_steps=cifar.num_reverse_steps // 2,
    )
    digits = Setup(
        name="digits-16" if is_quick else "digits-128",
        unet=digits_unet,
        image_shape=(1, 8, 8),
        batch_size=16 if is_quick else digits_job.training.global_batch_size,
        num_reverse_steps=60,
        num_training_steps=5,
    )
    return [digits, cifar, labelled] if is_quick else [digits, cifar, labelled, larger]


def noise_images(setup: Setup) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return (N, H, W, C) uint8 of noise."""
    channels, height, width = setup.image_shape
    shape = (NUM_IMAGES, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
