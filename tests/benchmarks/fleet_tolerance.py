"""Measures how far images drift apart when something that fixes bits is changed.

Trains the demo's network for a while, then draws the same images over whole chains at other batch
shapes and with another number of threads. `make bench-fleet` runs it with its other parts.
"""

import json
import sys
import tempfile
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.checkpoint import load_model, save_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.sampling.network import build_denoiser, build_diffusion

NUM_IMAGES, SHAPES = 16, (16, 8)
TRAINING = TrainingConfig(
    num_steps=150,
    global_batch_size=32,
    learning_rate=1e-3,
    lr_warmup_steps=50,
    ema_decay=0.95,
    precision="float32",
)
Row = dict[str, Any]


def train(folder: Path) -> None:
    """Train the demo's network on digits and save it."""
    pixels = (load_digits().images * (255 / 16)).round().astype(np.uint8)[..., None]
    state = TrainState(
        unet_config=UNetConfig(
            channels=32, channel_multipliers=(1, 2, 2), num_res_blocks=1,
            attention_resolutions=(4,), dropout=0.0,
        ),
        diffusion_config=DiffusionConfig(),
        config=TRAINING,
        image_shape=(1, 8, 8),
        compute=ComputeDecision(num_threads=torch.get_num_threads()),
    )  # fmt: skip
    dataset = ImageDataset(pixels, np.arange(len(pixels)))
    deque(train_steps(state, dataset, until_step=TRAINING.num_steps), maxlen=0)
    save_state(state, folder)


def chain(folder: Path, sampling: SamplingConfig, precision: Any, batch: int) -> Tensor:
    """Draw the images in batches of a size: (N, 1, 8, 8) float32."""
    network, info = load_model(folder)
    compute = ComputeDecision(precision=precision)
    denoiser, diffusion = build_denoiser(network, compute), build_diffusion(info, compute.device)
    edges = range(0, NUM_IMAGES + 1, batch)
    parts = [
        draw(denoiser, diffusion, sampling, torch.arange(start, stop), info.image_shape)
        for start, stop in pairwise(edges)
    ]
    return torch.cat(parts)


def difference(name: str, one: Tensor, other: Tensor) -> Row:
    """Return how far two drawings of the same images are apart, x_0 being in [-1, 1]."""
    levels = (to_uint8(one).int() - to_uint8(other).int()).abs()
    return {
        "what": name,
        "same_bits": torch.equal(one, other),
        "max_abs": float((one - other).abs().max()),
        "max_levels": int(levels.max()),
        "share_of_pixels_that_differ": float((levels > 0).double().mean()),
    }


def tolerance() -> list[Row]:
    """Return a row for each change, sampler and precision."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        for precision in ("float32", "bf16"):
            for sampling in (SamplingConfig(), SamplingConfig(method="ddim", num_steps=100)):
                label = f"{precision} {sampling.method} {sampling.num_steps} steps"
                torch.set_num_threads(1)
                drawn = {batch: chain(folder, sampling, precision, batch) for batch in SHAPES}
                reference = drawn.pop(SHAPES[0])
                for batch, images in drawn.items():
                    what = f"{label}: batch {batch} against {SHAPES[0]}"
                    rows.append(difference(what, images, reference))
                    print(rows[-1], file=sys.stderr, flush=True)
                torch.set_num_threads(2)
                again = chain(folder, sampling, precision, SHAPES[0])
                rows.append(difference(f"{label}: 2 threads against 1", again, reference))
    return rows


if __name__ == "__main__":
    print(json.dumps(tolerance(), indent=1))
