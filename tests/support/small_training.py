"""A training of some thousand weights on random images, for tests of what a step does."""

from typing import Any

import numpy as np

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps

UNET: dict[str, Any] = {
    "channels": 8,
    "channel_multipliers": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
}


def images(num_classes: int = 0) -> ImageDataset:
    """Return ten images of 8x8, perhaps with labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(10) % num_classes if num_classes else None
    return ImageDataset(pixels, np.arange(10), labels)


def small_state(
    *,
    unet: dict[str, Any] | None = None,
    diffusion: dict[str, Any] | None = None,
    compute: ComputeDecision | None = None,
    **training: Any,
) -> TrainState:
    """Return a state that took no step.

    Args:
        unet: Fields that are not those of UNET.
        diffusion: Fields of its DiffusionConfig.
        compute: How it computes.
        training: Fields of its TrainingConfig.
    """
    steps = {"num_steps": 8, "global_batch_size": 4, "learning_rate": 1e-2}
    return TrainState(
        unet_config=UNetConfig(**{**UNET, **(unet or {})}),
        diffusion_config=DiffusionConfig(**{"num_timesteps": 50, **(diffusion or {})}),
        config=TrainingConfig(**{**steps, **training}),
        image_shape=(1, 8, 8),
        compute=compute or ComputeDecision(),
    )


def train(state: TrainState, until_step: int, num_classes: int = 0) -> TrainState:
    """Train a state until a step and return it."""
    for _ in train_steps(state, images(num_classes), until_step=until_step):
        pass
    return state
