"""Measures data sets: preparing, reading, memory against the number of images: `make bench-data`.

Preparing: photos of 500 pixels become 64 x 64, on one core and on two, against a loop with Pillow
alone and against WebDataset. Reading: batches of 32 x 32 images from the node's cache and from a
SeaweedFS of its own, against torch's DataLoader. Each side is a process of its own; sides take
turns, and the median counts. Prints a table and writes JSON. `BENCH_LONG=1` goes to 10^6 images.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.benchmarks.bench_many_jobs import ROOT, seaweed

PHOTO = (375, 500)
NUM_SMALL, NUM_BLOCKS = 10_000, 200_000
PARTS = ("preparing", "reading", "growth")
Row = dict[str, Any]


def photo(number: int) -> Image.Image:
    """Return a picture with the spectrum of photos (1/f) and soft colours."""
    noise = np.random.default_rng(number)
    waves = np.hypot(
        *np.meshgrid(np.fft.fftfreq(PHOTO[0]), np.fft.rfftfreq(PHOTO[1]), indexing="ij")
    )
    waves[0, 0] = 1.0
    layers = []
    for _ in range(3):
        white = noise.standard_normal(waves.shape) + 1j * noise.standard_normal(waves.shape)
        layer = np.fft.irfft2(white / waves, PHOTO)
        layers.append(layer / layer.std())
    luma, *chroma = layers
    rgb = np.stack([luma + 0.3 * tint for tint in (chroma[0], chroma[1], -chroma[0])], axis=-1)
    return Image.fromarray(np.clip(128 + 48 * rgb, 0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int) -> None:
    """Write photos as JPEG files, and the same files as two shards of a WebDataset."""
    (folder / "photos").mkdir()
    (folder / "shards").mkdir()
    pictures = [photo(number) for number in range(min(count, 40))]
    for number in range(count):
        path = folder / "photos" / f"{number:06d}.jpg"
        quality = 80 + number // len(pictures) % 16
        pictures[number % len(pictures)].save(path, "JPEG", quality=quality)
    for shard in range(2):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as tar:
            for number in range(shard, count, 2):
                tar.add(folder / "photos" / f"{number:06d}.jpg", f"{number:06d}.jpg")


def write_small(folder: Path, count: int) -> None:
    """Write 32 x 32 pictures as PNG files."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    packed = []
    for _ in range(256):
        body = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(body, "PNG")
        packed.append(body.getvalue())
    for number in range(count):
        (folder / f"{number:07d}.png").write_bytes(packed[number % len(packed)])


def run_side(side: str, folder: Path, *arguments: int, cores: int = 2) -> Row:
    """Run one side on some cores; return what it told."""
    threads = {"OMP_NUM_THREADS": str(cores)}
    cpus = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.bench_data_sides",
            side,
            folder,
            *map(str, arguments),
        ],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **threads},
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def in_turn(sides: dict[str, tuple[str, Path]], turns: int, *arguments: int, cores: int) -> Row:
    """Run sides in turn; return each one's medians: images a second, and a second of a core."""
    found: dict[str, list[Row]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, (side, folder) in sides.items():
            found[name].append(run_side(side, folder, *arguments, cores=cores))
    return {
        name: {
            "per_s": statistics.median(row["images"] / row["seconds"] for row in rows),
            "per_core_s": statistics.median(row["images"] / row["cpu_s"] for row in rows),
        }
        for name, rows in found.items()
    }


def show(what: str, rates: Row, reference: str) -> None:
    """Print rates, and their ratios to one of them."""
    for name, rate in rates.items():
        ratios = [rate[key] / rates[reference][key] for key in ("per_s", "per_core_s")]
        print(
            f"{what:<18}{name:<20}{rate['per_s']:>8.0f} images/s, {rate['per_core_s']:>6.0f} a "
            f"second of a core ({ratios[0]:.2f} and {ratios[1]:.2f} of {reference})",
            flush=True,
        )


def preparing(folder: Path, count: int, turns: int) -> Row:
    """Measure preparing on one core and on two."""
    write_photos(folder, count)
    sides = {
        "Pillow alone": ("prepare_pillow", folder / "photos"),
        "here": ("prepare_here", folder / "photos"),
        "WebDataset": ("prepare_webdataset", folder / "shards"),
    }
    found = {}
    for cores in (1, 2):
        found[str(cores)] = in_turn(sides, turns, cores=cores)
        show(f"preparing, {cores} core", found[str(cores)], "Pillow alone")
    return found


def reading(folder: Path, turns: int) -> Row:
    """Measure reading from the node's cache, and from the store."""
    write_small(folder / "png", NUM_SMALL)
    paths = sorted((folder / "png").iterdir())
    np.save(folder / "images.npy", np.stack([np.asarray(Image.open(path)) for path in paths]))
    sides = {
        "DataLoader, files": ("read_loader_files", folder),
        "DataLoader, array": ("read_loader_array", folder),
        "here, warm": ("read_warm", folder),
    }
    rates = in_turn(sides, turns, 4 * NUM_SMALL, cores=2)
    show("reading", rates, "DataLoader, files")
    with tempfile.TemporaryDirectory(prefix="ddpmctl-bench-") as stack, seaweed(Path(stack)):
        cold = run_side("read_cold", folder, NUM_SMALL)
    rates["here, cold"] = {"per_s": cold["images"] / cold["seconds"]}
    print(f"reading, cold: {rates['here, cold']['per_s']:.0f} images/s", flush=True)
    blocks = run_side("read_blocks", folder, NUM_BLOCKS)
    for name in ("cold", "warm"):
        rates[f"here, blocks, {name}"] = {
            "per_s": blocks[f"{name}_per_s"],
            "per_core_s": blocks[f"{name}_per_core_s"],
            "longest_wait_s": blocks[f"{name}_longest_wait_s"],
        }
        print(
            f"reading, blocks, {name}: {blocks[f'{name}_per_s']:.0f} images/s, "
            f"{blocks[f'{name}_per_core_s']:.0f} a second of a core, the longest wait "
            f"{blocks[f'{name}_longest_wait_s']:.3f} s",
            flush=True,
        )
    return rates


def growth(folder: Path, files: list[int], synthetic: list[int]) -> list[Row]:
    """Measure memory and pace against the number of images."""
    rows = []
    for count in files:
        write_small(folder / f"png-{count}", count)
        rows.append({"what": "files", **run_side("prepare_folder", folder, count)})
    rows += [
        {"what": "synthetic", **run_side("prepare_synthetic", folder, count)} for count in synthetic
    ]
    rows.append({"what": "SHA-256 alone", **run_side("hash_alone", folder, synthetic[-1])})
    for row in rows:
        rate = row["images"] / row["seconds"]
        print(
            f"{row['what']:<18}{row['images']:>9} images, {rate:.0f} images/s, "
            f"{row['images'] / row['cpu_s']:.0f} a second of a core, {row['peak_mb']:.0f} MB",
            flush=True,
        )
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--output", type=Path, default=Path("bench-data.json"))
    options = parser.parse_args()
    is_long = os.environ.get("BENCH_LONG", "") not in ("", "0")
    files = [10_000, 100_000]
    synthetic = [10_000, 100_000, 1_000_000] if is_long else [10_000, 100_000]
    with tempfile.TemporaryDirectory(prefix="ddpmctl-bench-") as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Any]] = {
            "preparing": lambda: preparing(folder, options.photos, options.turns),
            "reading": lambda: reading(folder, options.turns),
            "growth": lambda: growth(folder, files, synthetic),
        }
        result = {part: measure() for part, measure in parts.items() if part in options.only}
    options.output.write_text(json.dumps(result, indent=1))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
