"""A small model as a checkpoint's files, and as a folder for diffusers."""

from pathlib import Path
from typing import Any

import torch

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.exchange.folders import write_folder
from ddpm.training.checkpoint import save_state
from ddpm.training.loop import TrainState

CLASS_NAMES = ("cat", "dog", "owl")


def write_small_checkpoint(folder: Path, **model: Any) -> Path:
    """Write a checkpoint of step 0 whose averages are all drawn, also those that begin at 0."""
    state = TrainState(
        unet_config=UNetConfig(
            channels=32,
            channel_multipliers=(1, 2),
            num_res_blocks=1,
            attention_resolutions=(4,),
            **model,
        ),
        diffusion_config=DiffusionConfig(num_timesteps=100, betas="cosine"),
        config=TrainingConfig(num_steps=1),
        image_shape=(3, 8, 8),
        compute=ComputeDecision(),
    )
    generator = torch.Generator().manual_seed(1)
    state.ema.copy_(torch.randn(state.ema.shape, generator=generator) * 0.05)
    save_state(
        state, folder, {"class_names": list(CLASS_NAMES)} if model.get("num_classes") else {}
    )
    return folder


def write_small_folder(folder: Path, **model: Any) -> Path:
    """Write the same as a folder that diffusers loads."""
    write_folder(write_small_checkpoint(folder / "own", **model), folder / "out", origin="digits")
    return folder / "out"
