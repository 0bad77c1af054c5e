"""Measures the sampling fleet: pace against a bare loop, dispatch, memory against N, growth.

Run `make bench-fleet`. It starts a Ray of its own on this machine (and, for the parts that need a
store, an embedded stack of its own in a temporary folder), prints a table and writes JSON.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from ddpm.checkpoint import load_model, save_state
from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.sampling import draw, to_uint8
from ddpm.training import TrainState
from orchestrator.checkpoints import CheckpointStore
from orchestrator.paths import JobPaths
from orchestrator.sample_crew import Crew, CrewPlan
from orchestrator.sample_drawing import DrawnShard, ShardTask, Watch
from orchestrator.sample_fleet import Fleet, FleetHooks
from orchestrator.sample_model import ResolvedModel, fetch_model, resolve_model
from orchestrator.sample_network import build_denoiser, build_diffusion
from orchestrator.sample_shards import (
    SampleShards,
    SetOrigin,
    ShardCommit,
    encode_shard,
    hash_bytes,
    hash_pixels,
)
from orchestrator.sample_studio import Result, ShardEvent, StoreSetup
from orchestrator.shards import ShardTable, plan_shards
from orchestrator.spec import ModelRef, SampleJob
from orchestrator.stack import Stack
from orchestrator.storage import open_store

MODEL_JOB = "bench-model"
PACE_IMAGES, PACE_STEPS, PACE_MICROBATCH = 256, 25, 32
PARTS = ("memory", "dispatch", "commits", "growth", "pace")
Row = dict[str, Any]


@dataclass(frozen=True)
class FakeSetup:
    """Opens studios that draw nothing; with a store, they make real commits of grey images.

    Attributes:
        store_uri: Where commits go; "" for nowhere.
        job_id: Whose commits they are.
        shard_size: Images of a shard.
    """

    store_uri: str = ""
    job_id: str = ""
    shard_size: int = 100

    def open(self, worker: str) -> "FakeStudio":
        """Return the studio of a worker."""
        return FakeStudio(self, worker)


class FakeStudio:
    """A network that costs nothing, so that only the fleet is measured."""

    def __init__(self, setup: FakeSetup, worker: str) -> None:
        self._setup = setup
        self._worker = worker
        self._store = open_store(setup.store_uri) if setup.store_uri else None
        self._pixels = np.full((setup.shard_size, 8, 8, 1), 128, np.uint8)

    def prepare(self, decisions: Mapping[str, Any] | None) -> dict[str, Any]:
        """Have nothing to decide."""
        return {"fake": True}

    def begin(self, decisions: Mapping[str, Any]) -> list[str]:
        """Have nothing to build."""
        return []

    def draw(self, task: ShardTask, watch: Watch) -> Result:
        """Draw nothing."""
        if self._store is None:
            return None
        pixels = self._pixels[: task.shard.num_images]
        return DrawnShard(shard=task.shard, pixels=pixels, frames=None, seconds=0.0)

    def keep(self, task: ShardTask, result: Result) -> ShardEvent:
        """Commit to the store, if there is one."""
        if isinstance(result, DrawnShard):
            self._commit(result)
        return ShardEvent(index=task.shard.index, kind="committed", is_own=True)

    def _commit(self, drawn: DrawnShard) -> None:
        assert self._store is not None
        shard, paths = drawn.shard, JobPaths(self._setup.job_id)
        body = encode_shard(drawn.pixels, shard.start, "npy")
        key = f"{paths.attempt(1).data(f'{shard.index}')}shard-{shard.index:06d}.npy"
        self._store.put(key, body)
        commit = ShardCommit(
            index=shard.index,
            start=shard.start,
            stop=shard.stop,
            data_key=key,
            size_bytes=len(body),
            sha256=hash_bytes(body),
            pixel_sha256=hash_pixels(drawn.pixels),
            image_shape=(8, 8, 1),
            format="npy",
            origin=SetOrigin(checkpoint_sha256="", seed=0, decisions_sha256=""),
            attempt=1,
            worker=self._worker,
            seconds=0.0,
        )
        SampleShards(self._store, paths).commit(commit)


def run_fleet(
    setup: Any, num_images: int, shard_size: int, workers: int, cpus: float
) -> tuple[Fleet, float]:
    """Run a fleet to its end; return it and the seconds from first shard to last commit."""
    crew = Crew(setup, CrewPlan(nodes=("",) * workers, max_workers=workers, cpus=cpus))
    table = ShardTable(plan_shards(num_images, shard_size), straggler_floor_s=3.0)
    fleet = Fleet(table, crew, FleetHooks(decide=dict))
    fleet.run(threading.Event(), lambda: 10.0)
    totals = fleet.totals
    assert totals.first_draw_at is not None
    assert totals.last_commit_at is not None
    return fleet, totals.last_commit_at - totals.first_draw_at


def dispatch(num_images: int, shard_size: int, workers: int, store_uri: str = "") -> Row:
    """Measure shards a second from table to worker to done, with no pixels drawn."""
    setup = FakeSetup(store_uri, f"dispatch-{num_images}", shard_size)
    fleet, seconds = run_fleet(setup, num_images, shard_size, workers, 1)
    shards = len(fleet.table.plan)
    return {
        "images": num_images,
        "shards": shards,
        "workers": workers,
        "real_commits": bool(store_uri),
        "seconds": seconds,
        "shards_per_s": shards / seconds,
    }


def memory_of_driver(num_images: int, shard_size: int, workers: int) -> Row:
    """Measure a driver's peak memory in a process of its own: before the fleet, and at the end."""
    command = [sys.executable, __file__, "--memory", str(num_images)]
    done = subprocess.run(
        [*command, "--shard-size", str(shard_size), "--workers", str(workers)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def _memory_here(num_images: int, shard_size: int, workers: int) -> Row:
    with local_ray(workers):
        run_fleet(FakeSetup(shard_size=shard_size), shard_size * 4, shard_size, workers, 1)
        before = _peak_mb()
        _, seconds = run_fleet(FakeSetup(shard_size=shard_size), num_images, shard_size, workers, 1)
        return {
            "images": num_images,
            "shards": num_images // shard_size,
            "warm_peak_mb": before,
            "peak_mb": _peak_mb(),
            "grew_mb": _peak_mb() - before,
            "seconds": seconds,
        }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def put_model(store_uri: str) -> None:
    """Commit a small network with random weights."""
    store = open_store(store_uri)
    state = TrainState(
        unet_config=UNetConfig(channels=32, channel_multipliers=(1, 2), attention_resolutions=()),
        diffusion_config=DiffusionConfig(num_timesteps=1000),
        config=TrainingConfig(num_steps=1),
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )
    state.ema.add_(torch.randn(state.ema.shape), alpha=0.02)
    with tempfile.TemporaryDirectory() as folder:
        save_state(state, Path(folder))
        CheckpointStore(store, JobPaths(MODEL_JOB)).commit(1, Path(folder), 1, {})
    store.put(JobPaths(MODEL_JOB).spec, b"{}")


def pace_spec() -> SampleJob:
    """Return the job whose pace is compared with the bare loop."""
    return SampleJob(
        kind="sample",
        name="pace",
        model=ModelRef(job=MODEL_JOB),
        num_samples=PACE_IMAGES,
        sampling=SamplingConfig(
            num_steps=PACE_STEPS,
            microbatch_size=PACE_MICROBATCH,
            precision="float32",
            compile=False,
        ),
        shard_size=2 * PACE_MICROBATCH,
    )


def bare_loop(store_uri: str, cpus: int) -> float:
    """Return the images per second of a plain loop over microbatches, which keeps nothing."""
    spec = pace_spec()
    model = ResolvedModel.from_json(resolve_model(open_store(store_uri), spec.model))
    network, info = load_model(fetch_model(open_store(store_uri), model).folder)
    torch.set_num_threads(cpus)
    compute = ComputeDecision(num_threads=cpus)
    denoiser, diffusion = build_denoiser(network, compute), build_diffusion(info, compute.device)
    seconds = []
    for start in range(-PACE_MICROBATCH, PACE_IMAGES, PACE_MICROBATCH):
        began_at = time.perf_counter()
        indices = torch.arange(start, start + PACE_MICROBATCH).clamp(min=0)
        to_uint8(draw(denoiser, diffusion, spec.sampling, indices, info.image_shape))
        seconds.append(time.perf_counter() - began_at)
    return PACE_IMAGES / sum(seconds[1:])  # the first warms up


def fleet_pace(store_uri: str, workers: int, cpus: int, repeat: int) -> tuple[float, float]:
    """Return the images per second of a fleet, and the share of the time that workers draw.

    Both from the first shard's start to the last commit.
    """
    spec = pace_spec()
    setup = StoreSetup(
        store_uri=store_uri,
        job_id=f"pace-{workers}-{cpus}-{repeat}",
        attempt=1,
        spec=spec,
        model=ResolvedModel.from_json(resolve_model(open_store(store_uri), spec.model)),
        cpus=cpus,
        uses_gpu=False,
    )
    fleet, seconds = run_fleet(setup, spec.num_samples, spec.shard_size, workers, cpus)
    return spec.num_samples / seconds, fleet.totals.useful_s / workers / seconds


def pace(store_uri: str, cpus: int, repeats: int) -> Row:
    """Compare a fleet of one worker with the bare loop at equal cores, turn by turn."""
    put_model(store_uri)
    bare, fleet = [], []
    for repeat in range(repeats):
        bare.append(bare_loop(store_uri, cpus))
        fleet.append(fleet_pace(store_uri, 1, cpus, repeat))
    shares = [images_per_s / b for (images_per_s, _), b in zip(fleet, bare, strict=True)]
    return {
        "cpus": cpus,
        "bare_images_per_s": statistics.median(bare),
        "fleet_images_per_s": statistics.median(images_per_s for images_per_s, _ in fleet),
        "drawing_share": statistics.median(share for _, share in fleet),
        "share": statistics.median(shares),
        "shares": shares,
    }


def growth() -> Row:
    """Measure from "a second worker could be placed" to "it draws": a hog holds its place first."""

    @ray.remote(num_cpus=1)
    class Hog:
        def hold(self) -> bool:
            return True

    hog: Any = Hog.remote()
    ray.get(hog.hold.remote())
    plan = CrewPlan(nodes=("",), max_workers=2, cpus=1)
    freed_at: list[float] = []
    drew_at: list[float] = []

    def tick(fleet: Fleet) -> None:
        if not freed_at and fleet.totals.images:
            ray.kill(hog)
            freed_at.append(time.monotonic())
        if freed_at and not drew_at and len([m for m in fleet.members if m.report]) == 2:
            drew_at.append(time.monotonic())
            stop.set()

    stop = threading.Event()
    table = ShardTable(plan_shards(10**9, 10))
    fleet = Fleet(table, Crew(FakeSetup(), plan), FleetHooks(decide=dict, tick=tick))
    fleet.run(stop, lambda: 5.0)
    return {"growth_s": drew_at[0] - freed_at[0]}


@contextmanager
def local_ray(num_cpus: int) -> Iterator[None]:
    """Start a Ray for this process alone."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # on a busy machine
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        logging_level="ERROR",
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def local_store() -> Iterator[str]:
    """Start a stack of its own; yield the URI of its store, with the environment set."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / ".ddpmctl", num_cpus=1, num_gpus=0)
        stack.up()
        info = stack.info()
        assert info is not None
        wanted = {k: v for k, v in info.environment.items() if not k.startswith("RAY_")}
        os.environ.update(wanted)
        try:
            yield os.environ["DDPMCTL_STORE"]
        finally:
            stack.down()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every part and return what it gave."""
    images, size, workers = options.images, options.shard_size, options.workers
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg(), "cpu": platform.processor()},
    }
    if "memory" in options.parts:
        results["memory"] = [memory_of_driver(n, size, workers) for n in (images // 100, images)]
    with local_store() as uri, local_ray(max(workers, 2)):
        parts: dict[str, Callable[[], Row]] = {
            "dispatch": lambda: dispatch(images, size, workers),
            "commits": lambda: dispatch(options.commit_images, size, workers, uri),
            "growth": growth,
            "pace": lambda: pace(uri, 1, options.repeats),
        }
        for name in [name for name in PARTS if name in options.parts and name in parts]:
            results[name] = parts[name]()
            options.output.write_text(json.dumps(results, indent=1))
    return results


def report(results: dict[str, Any]) -> None:
    """Print the table."""
    rows: list[tuple[str, str]] = []
    for name in [name for name in ("dispatch", "commits") if name in results]:
        row = results[name]
        rows.append((f"{name}: {row['shards']} shards", f"{row['shards_per_s']:.0f} shards/s"))
    rows += [
        (f"driver's peak growth, {row['shards']} shards", f"{row['grew_mb']:.1f} MB")
        for row in results.get("memory", ())
    ]
    if "growth" in results:
        rows.append(("growth: room to first shard", f"{results['growth']['growth_s']:.2f} s"))
    if "pace" in results:
        found = results["pace"]
        rows.append(("bare loop", f"{found['bare_images_per_s']:.1f} images/s"))
        rows.append(("fleet of one worker", f"{found['fleet_images_per_s']:.1f} images/s"))
        rows.append(("time in which its worker draws", f"{100 * found['drawing_share']:.1f} %"))
        rows.append(("share of the bare loop", f"{100 * found['share']:.1f} %"))
    for label, value in rows:
        print(f"{label:<40} {value:>20}")


def main() -> None:
    """Measure, write as it goes, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10**6)
    parser.add_argument("--commit-images", type=int, default=10**5)
    parser.add_argument("--shard-size", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--memory", type=int, help="only this many images, for the memory")
    parser.add_argument("--output", type=Path, default=Path("bench-fleet.json"))
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(_memory_here(options.memory, options.shard_size, options.workers)))
        return
    report(measure(options))


if __name__ == "__main__":
    main()
