"""How good images are against how long the network was trained: the demo's, on the digits.

Trains the demo's network on one thread as a job would (with the AMX kernels where there are some),
and stops a few times on the way to draw images with the averaged weights and compare them with all
real digits. `make bench-training-time` writes bench-training-time.json.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ddpm.compute import Workload, decide_compute
from ddpm.config import DiffusionConfig, SamplingConfig
from ddpm.training.checkpoint import save_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from tests.benchmarks.bench_samplers import (
    NUM_IMAGES,
    TRAINING,
    UNET,
    digits,
    drawn,
    floors,
    measured,
)

STOPS = (100, 200, 400, 700, 1000)
SEEDS = (0,)


def new_state(folder: Path) -> TrainState:
    """Return the demo's training as it begins, computed as its job would decide."""
    batch = TRAINING.global_batch_size
    compute = decide_compute(
        Workload(network=UNET, images_per_pass=batch),
        precision="auto",
        compile_request="auto",
        num_threads=1,
        worth_compiling=False,
        kernel_folder=folder,
        device_kind="cpu",
    )
    print(f"computed in {compute.precision}: {compute.reason}", flush=True)
    return TrainState(
        unet_config=UNET,
        diffusion_config=DiffusionConfig(),
        config=TRAINING,
        image_shape=(1, 8, 8),
        compute=compute,
    )


def main() -> None:
    """Train, measure at each stop, print and write."""
    torch.set_num_threads(1)
    images = digits()
    real = (images.reshape(-1, 64) / np.float32(127.5) - 1.0).astype(np.float32)
    rows, spent_s = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        state = new_state(Path(name))
        for stop in STOPS:
            began_at = time.process_time()
            for _ in train_steps(
                state, ImageDataset(images, np.arange(len(images))), until_step=stop
            ):
                pass
            spent_s += time.process_time() - began_at
            folder = Path(name) / f"step-{stop}"
            folder.mkdir()
            save_state(state, folder)
            for seed in SEEDS:
                config = SamplingConfig(num_steps=50, variance="fixed_small", seed=seed)
                row = {"steps": stop, "cpu_s": spent_s, "seed": seed}
                rows.append({**row, **measured(drawn(folder, config), real)})
                print(json.dumps(rows[-1]), flush=True)
    result = {"num_images": NUM_IMAGES, "floors": floors(real), "rows": rows}
    Path("bench-training-time.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["floors"]), flush=True)


if __name__ == "__main__":
    main()
