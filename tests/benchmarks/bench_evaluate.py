"""Measures evaluations: the pace of features, memory against N, a whole one: `make bench-evaluate`.

Features: a worker that reads a set's shards from a SeaweedFS of its own, computes efflite0's
features and commits them, against a loop of the extractor over the same images in memory. Memory:
the peak of a process that compares N x 2,048 features from memory maps. Whole: all numbers of
50,000 images of 8 x 8 pixels against as many. A second of a processor counts more than one on the
clock where others compute, so both are told. Prints and writes JSON. `BENCH_LONG=1` goes to
50,000 x 2,048.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ddpm.metrics.blocks import MappedRows
from ddpm.metrics.scores import score_all
from orchestrator.artifacts.samples.verify import SampleSet
from orchestrator.evaluation.extractors import open_extractor
from orchestrator.evaluation.image_sets import ImageSet
from orchestrator.evaluation.worker import FeatureSetup, FeatureWorker
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.specs.measuring import ExtractorSpec
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.benchmarks.bench_many_jobs import ROOT, seaweed
from tests.support.fakes import MemoryStore
from tests.support.memory import peak_mb
from tests.support.sample_sets import put_set

EFFLITE0 = ExtractorSpec(name="efflite0")
NUM_IMAGES, SHARD, TURNS = 128, 64, 3
WIDTH = 2048
SIZES = (1_000, 2_000, 8_000)
LONG_SIZES = (*SIZES, 50_000)
WHOLE = (50_000, 64)
Row = dict[str, Any]


def timed(do: Callable[[], object]) -> Row:
    """Return the seconds of the clock and of the processor that something took."""
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def sample_set(store: ObjectStore, job_id: str) -> ImageSet:
    """Return a set as an evaluation fixes it."""
    manifest = SampleSet(store, job_id).manifest()
    height, width, channels = manifest.image_shape
    return ImageSet(
        form="samples",
        name=job_id,
        sha256=manifest.set_sha256,
        num_images=NUM_IMAGES,
        shape=(height, width, channels),
        shard_size=SHARD,
        job_id=job_id,
    )


def features(folder: Path) -> Row:
    """Measure a worker against the bare loop, in turn, each time on images of their own."""
    torch.set_num_threads(1)
    sides: dict[str, list[Row]] = {"worker": [], "bare loop": []}
    bare = open_extractor(EFFLITE0, torch.device("cpu"))
    with seaweed(folder):
        store = open_store(os.environ["DDPMCTL_STORE"])
        for turn in range(-1, TURNS):  # the first one warms up
            rng = np.random.default_rng(turn + 1)
            pixels = rng.integers(0, 256, (NUM_IMAGES, 32, 32, 3), np.uint8)
            put_set(cast(MemoryStore, store), f"set-{turn + 1}", pixels, SHARD)
            images = sample_set(store, f"set-{turn + 1}")
            decided = {"of": asdict(images), "against": asdict(images)}
            decisions = Decisions({**decided, "extractor": EFFLITE0.model_dump()})
            setup = FeatureSetup(store_uri=store.uri, cpus=1, uses_gpu=False)
            worker = setup.open("worker", decisions).begin(decisions)

            def work(images: ImageSet = images, worker: FeatureWorker = worker) -> None:
                for shard in images.plan:
                    worker.keep(ShardTask(shard), worker.compute(ShardTask(shard), Watch()))

            def loop(pixels: np.ndarray[Any, Any] = pixels) -> None:
                for start in range(0, NUM_IMAGES, SHARD):
                    bare(pixels[start : start + SHARD])

            for name, row in (("worker", timed(work)), ("bare loop", timed(loop))):
                if turn >= 0:
                    sides[name].append(row)
    return {
        name: {
            "per_s": statistics.median(NUM_IMAGES / row["seconds"] for row in rows),
            "per_core_s": statistics.median(NUM_IMAGES / row["cpu_s"] for row in rows),
        }
        for name, rows in sides.items()
    }


def compare(num: int, width: int) -> Row:
    """Compare two sets of features in this process; return what it took."""
    with tempfile.TemporaryDirectory() as name:
        maps = []
        for side in range(2):
            path = Path(name) / f"{side}.npy"
            rng = np.random.default_rng(side)
            with path.open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (num, width)}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, num, 1000):
                    rows = min(1000, num - start)
                    file.write(rng.standard_normal((rows, width), np.float32).tobytes())
            maps.append(MappedRows(path))
        before = peak_mb()
        row = timed(lambda: score_all(*maps))
        after = peak_mb()
    return {"images": num, "width": width, **row, "peak_mb": after, "start_mb": before}


def apart(num: int, width: int) -> Row:
    """Return what `compare` says in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_evaluate", "--compare", f"{num},{width}"],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    """Measure what is asked for, print it, and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("features", "memory", "whole"))
    parser.add_argument("--compare", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("bench-evaluate.json"))
    asked = parser.parse_args()
    if asked.compare:
        num, width = map(int, asked.compare.split(","))
        sys.stdout.write(json.dumps(compare(num, width)))
        return
    found: dict[str, Any] = {}
    if asked.only in (None, "features"):
        with tempfile.TemporaryDirectory() as name:
            found["features"] = features(Path(name))
    if asked.only in (None, "memory"):
        sizes = LONG_SIZES if os.environ.get("BENCH_LONG") else SIZES
        found["memory"] = [apart(num, WIDTH) for num in sizes]
    if asked.only in (None, "whole"):
        found["whole"] = apart(*WHOLE)
    asked.output.write_text(json.dumps(found, indent=1))
    sys.stdout.write(f"{json.dumps(found, indent=1)}\n")


if __name__ == "__main__":
    main()
