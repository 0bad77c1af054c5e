"""How good images are against how often a method asks the network, for all methods.

Trains the demo's network on the digits (or takes the checkpoint of a folder, and images of an IDX
file, such as MNIST's), draws the same number of images with each method, number of steps and seed,
of a network with classes equally many of each, and compares them with real ones: kernel distance,
precision and coverage. `make bench-samplers` writes bench-samplers.json and docs/samplers.svg.
A run that is cut short goes on: what was measured stands in bench-samplers.jsonl until all was.
"""

import argparse
import functools
import gzip
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from ddpm.compute import ComputeDecision, Workload, decide_compute
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.metrics.blocks import normalised
from ddpm.metrics.kernel import kernel_distance
from ddpm.metrics.neighbours import neighbourhoods
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import draw
from ddpm.process.steps import settled
from ddpm.training.checkpoint import load_model, save_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.artifacts.samples.labels import make_rule
from orchestrator.sampling.network import Drawing, build_denoiser

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
MOST_REAL = 5000  # of a larger set, that many are compared with
MEASURES = ("KID", "precision", "coverage")
Row = dict[str, Any]
Pixels = NDArray[np.float32]


def digits() -> NDArray[np.uint8]:
    """Return the 1,797 digits as the product takes them in: (N, 8, 8, 1) uint8."""
    images = load_digits().images
    levels: NDArray[np.uint8] = np.rint(images / 16.0 * 255.0).astype(np.uint8)
    return levels[..., None]


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


def idx_images(path: Path) -> NDArray[np.uint8]:
    """Return the first images of an IDX file, packed or not: (N, H, W, 1) uint8."""
    body = path.read_bytes()
    body = gzip.decompress(body) if path.suffix == ".gz" else body
    num, height, width = np.frombuffer(body, ">i4", 3, 4)
    pixels = np.frombuffer(body, np.uint8, offset=16).reshape(num, height, width, 1)
    return pixels[:MOST_REAL]


def samplers(seeds: Sequence[int] = SEEDS) -> Iterator[tuple[str, SamplingConfig]]:
    """Yield each method with each number of steps and each seed, the longest chain last."""
    for seed in seeds:
        for name, settings in METHODS.items():
            for steps in HEUN_STEPS if name == "heun" else STEPS:
                yield name, SamplingConfig(num_steps=steps, seed=seed, **settings)
        yield "ddpm, fixed_large", SamplingConfig(num_steps=50, variance="fixed_large", seed=seed)
    yield "ddpm, fixed_small", SamplingConfig(num_steps=LONG, variance="fixed_small")


def measured(pixels: Pixels, real: Pixels) -> dict[str, float]:
    """Return the measures of images against real ones, both (N, H * W) float32 in [-1, 1].

    Precision and coverage are of equal numbers: the first real ones of a fixed shuffle.
    """
    order = np.random.default_rng(0).permutation(len(real))[: len(pixels)]
    near = neighbourhoods(normalised(pixels), normalised(real[order]), K)
    return {
        "KID": kernel_distance(pixels, real),
        "precision": float(near.precision),
        "coverage": float(near.coverage),
    }


@functools.cache
def drawing_of(folder: Path, config: SamplingConfig, is_fast: bool) -> Drawing:
    """Return the averaged weights as a worker of a job holds them; not fast: in float32, eager."""
    network, info = load_model(folder)
    compute = ComputeDecision()
    if is_fast:
        compute = decide_compute(
            Workload(network=info.unet_config, images_per_pass=config.microbatch_size),
            precision="auto",
            compile_request="auto",
            num_threads=torch.get_num_threads(),
            worth_compiling=False,
            kernel_folder=folder,
            device_kind="cpu",
        )
    classes = info.unet_config.known_classes
    return Drawing(
        network=build_denoiser(network, compute),
        diffusion=GaussianDiffusion(info.diffusion_config),
        config=settled(config, info.diffusion_config),
        rule=make_rule(replace(config, labels="balanced") if classes else config, classes),
        null_label=network.null_label,
    )


def drawn(
    folder: Path, config: SamplingConfig, num_images: int = NUM_IMAGES, *, is_fast: bool = False
) -> Pixels:
    """Draw images with the averaged weights: (N, H * W) float32, rounded to 256 levels."""
    drawing, shape = drawing_of(folder, config, is_fast), load_model(folder)[1].image_shape
    parts, size = [], config.microbatch_size
    for first in range(0, num_images, size):
        indices = torch.arange(first, first + size)
        with torch.no_grad():
            x = draw(drawing.denoiser(first), drawing.diffusion, drawing.config, indices, shape)
        parts.append(x[: num_images - first])
    x = torch.cat(parts).clamp(-1.0, 1.0)
    levels = ((x + 1.0) * 127.5).round() / 127.5 - 1.0
    return levels.flatten(1).numpy()


def floors(real: Pixels, num_images: int = NUM_IMAGES) -> list[dict[str, float]]:
    """Return what real images get against other real ones, over four splits."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(4):
        order = rng.permutation(len(real))
        found.append(measured(real[order[:num_images]], real[order[num_images:]]))
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


def options() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, help="folder of a checkpoint's files")
    parser.add_argument("--images", type=Path, help="IDX file of real images; none: the digits")
    parser.add_argument("--num-images", type=int, default=NUM_IMAGES)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--fast", action="store_true", help="compute as a job of `auto` does")
    parser.add_argument("--for-s", type=float, default=1e9, help="begin nothing after that time")
    parser.add_argument("--output", type=Path, default=Path("bench-samplers.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/samplers.svg"))
    return parser.parse_args()


def rows_of(asked: argparse.Namespace, folder: Path, real: Pixels) -> list[Row]:
    """Measure what stands in no file yet, as long as there is time; return all that does."""
    path = asked.output.with_suffix(".jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(row["method"], row["evaluations"], row["seed"]) for row in rows}
    until = time.monotonic() + asked.for_s
    for method, config in samplers(range(asked.seeds)):
        told = {"method": method, "evaluations": config.num_evaluations, "seed": config.seed}
        if tuple(told.values()) in known or time.monotonic() > until:
            continue
        began_at = time.process_time()
        pixels = drawn(folder, config, asked.num_images, is_fast=asked.fast)
        row = {**told, "cpu_s": time.process_time() - began_at, **measured(pixels, real)}
        rows.append(row)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    """Measure everything and write both files."""
    torch.set_num_threads(1)
    asked = options()
    images = idx_images(asked.images) if asked.images else digits()
    real = (images.reshape(len(images), -1) / np.float32(127.5) - 1.0).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = asked.checkpoint or Path(name)
        if not (folder / "state.json").exists():
            began_at = time.process_time()
            train(folder)
            print(f"trained in {time.process_time() - began_at:.0f} CPU s", flush=True)
        rows = rows_of(asked, folder, real)
    if len(rows) == len(list(samplers(range(asked.seeds)))):  # the next run measures anew
        asked.output.with_suffix(".jsonl").unlink(missing_ok=True)
    result = {
        "num_images": asked.num_images,
        "num_reference": len(real),
        "floors": floors(real, asked.num_images),
        "rows": summed(rows),
    }
    asked.output.write_text(json.dumps(result, indent=1) + "\n")
    plot(result["rows"], result["floors"], asked.figure)


if __name__ == "__main__":
    main()
