"""How good images are against how often a method asks the network: all methods, on the digits.

Trains the demo's network once (or takes the checkpoint of a folder), draws the same number of
images with each method, number of steps and seed, and compares them with all real digits: kernel
distance, precision and coverage. `make bench-samplers` writes bench-samplers.json and
docs/samplers.svg.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.metrics.blocks import normalised
from ddpm.metrics.kernel import kernel_distance
from ddpm.metrics.neighbours import neighbourhoods
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import draw
from ddpm.training.checkpoint import load_model, save_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps

NUM_IMAGES, SEEDS, K = 512, (0, 1, 2), 5
NUM_TRAINING_STEPS = 1000
UNET = UNetConfig(
    channels=32,
    channel_multipliers=(1, 2, 2),
    num_res_blocks=1,
    attention_resolutions=(4,),
    dropout=0.0,
)
TRAINING = TrainingConfig(
    num_steps=NUM_TRAINING_STEPS,
    global_batch_size=128,
    learning_rate=1e-3,
    lr_warmup_steps=100,
    ema_decay=0.995,
    precision="float32",
)
# Each with the spacing that suits it; heun asks the network twice a step, but for the last.
METHODS: dict[str, dict[str, Any]] = {
    "ddpm, fixed_small": {"method": "ddpm", "variance": "fixed_small"},
    "ddim": {"method": "ddim"},
    "dpm++2m": {"method": "dpm++2m", "spacing": "logsnr"},
    "dpm++2m_sde": {"method": "dpm++2m_sde", "spacing": "logsnr"},
    "heun": {"method": "heun", "spacing": "karras"},
}
STEPS = (5, 10, 20, 50)
HEUN_STEPS = (3, 5, 10, 25)
LONG = 1000  # of ddpm, once
MEASURES = ("KID", "precision", "coverage")
Row = dict[str, Any]
Pixels = NDArray[np.float32]


def digits() -> NDArray[np.uint8]:
    """Return the 1,797 digits as the product takes them in: (N, 8, 8, 1) uint8."""
    images = load_digits().images
    return np.rint(images / 16.0 * 255.0).astype(np.uint8)[..., None]


def train(folder: Path) -> None:
    """Train the demo's network and save it."""
    images = digits()
    state = TrainState(
        unet_config=UNET,
        diffusion_config=DiffusionConfig(),
        config=TRAINING,
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )
    for step in train_steps(
        state, ImageDataset(images, np.arange(len(images))), until_step=TRAINING.num_steps
    ):
        if step.step % 100 == 0:
            print(f"step {step.step}: loss {step.loss:.4f}", flush=True)
    save_state(state, folder)


def samplers() -> Iterator[tuple[str, SamplingConfig]]:
    """Yield each method with each number of steps and each seed, the longest chain last."""
    for seed in SEEDS:
        for name, settings in METHODS.items():
            for steps in HEUN_STEPS if name == "heun" else STEPS:
                yield name, SamplingConfig(num_steps=steps, seed=seed, **settings)
        yield "ddpm, fixed_large", SamplingConfig(num_steps=50, variance="fixed_large", seed=seed)
    yield "ddpm, fixed_small", SamplingConfig(num_steps=LONG, variance="fixed_small")


def measured(pixels: Pixels, real: Pixels) -> dict[str, float]:
    """Return the measures of images against real ones, both (N, 64) float32 in [-1, 1].

    Precision and coverage are of equal numbers: the first real ones of a fixed shuffle.
    """
    order = np.random.default_rng(0).permutation(len(real))[: len(pixels)]
    near = neighbourhoods(normalised(pixels), normalised(real[order]), K)
    return {
        "KID": kernel_distance(pixels, real),
        "precision": float(near.precision),
        "coverage": float(near.coverage),
    }


def drawn(folder: Path, config: SamplingConfig) -> Pixels:
    """Draw images with the averaged weights: (NUM_IMAGES, 64) float32, rounded to 256 levels."""
    network, info = load_model(folder)
    diffusion = GaussianDiffusion(info.diffusion_config)
    parts = []
    for first in range(0, NUM_IMAGES, config.microbatch_size):
        indices = torch.arange(first, min(first + config.microbatch_size, NUM_IMAGES))
        with torch.no_grad():
            parts.append(draw(network, diffusion, config, indices, info.image_shape))
    x = torch.cat(parts).clamp(-1.0, 1.0)
    levels = ((x + 1.0) * 127.5).round() / 127.5 - 1.0
    return levels.flatten(1).numpy()


def floors(real: Pixels) -> list[dict[str, float]]:
    """Return what real digits get against other real ones, over four splits."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(4):
        order = rng.permutation(len(real))
        found.append(measured(real[order[:NUM_IMAGES]], real[order[NUM_IMAGES:]]))
    return found


def summed(rows: list[Row]) -> list[Row]:
    """Return mean and standard deviation over the seeds, for each method and number."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["evaluations"]), []).append(row)
    return [
        {
            "method": method,
            "evaluations": evaluations,
            "seeds": len(group),
            "cpu_s": round(float(np.mean([row["cpu_s"] for row in group])), 2),
            **{
                name: {
                    "mean": float(np.mean([row[name] for row in group])),
                    "std": float(np.std([row[name] for row in group], ddof=1))
                    if len(group) > 1
                    else None,
                }
                for name in MEASURES
            },
        }
        for (method, evaluations), group in groups.items()
    ]


def plot(table: list[Row], floor: list[dict[str, float]], path: Path) -> None:
    """Write the figure."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ddpmctl"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(MEASURES), figsize=(11, 3.4), layout="constrained")
    for axis, name in zip(axes, MEASURES, strict=True):
        for method in dict.fromkeys(row["method"] for row in table):
            rows = [row for row in table if row["method"] == method]
            axis.errorbar(
                [row["evaluations"] for row in rows],
                [row[name]["mean"] for row in rows],
                yerr=[row[name]["std"] or 0.0 for row in rows],
                marker="o",
                markersize=3,
                capsize=2,
                linewidth=1,
                label=method,
            )
        axis.axhline(
            float(np.mean([one[name] for one in floor])),
            color="grey",
            linestyle=":",
            label="real against real",
        )
        axis.set_xscale("log")
        axis.set_xlabel("evaluations of the network")
        axis.set_title(name)
    axes[0].set_yscale("symlog", linthresh=1e-3)
    axes[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure everything and write both files; an argument names a folder with a checkpoint."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(name)
        if not (folder / "state.json").exists():
            began_at = time.process_time()
            train(folder)
            print(f"trained in {time.process_time() - began_at:.0f} CPU s", flush=True)
        real = (digits().reshape(-1, 64) / np.float32(127.5) - 1.0).astype(np.float32)
        rows: list[Row] = []
        for method, config in samplers():
            began_at = time.process_time()
            pixels = drawn(folder, config)
            spent_s = time.process_time() - began_at
            row = {
                "method": method,
                "evaluations": config.num_evaluations,
                "seed": config.seed,
                "cpu_s": spent_s,
                **measured(pixels, real),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {
        "num_images": NUM_IMAGES,
        "num_reference": len(real),
        "training_steps": TRAINING.num_steps,
        "floors": floors(real),
        "rows": summed(rows),
    }
    Path("bench-samplers.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result["rows"], result["floors"], Path("docs/samplers.svg"))


if __name__ == "__main__":
    main()
