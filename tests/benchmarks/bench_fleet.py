"""Measures the sampling fleet: pace against a bare loop, dispatch, memory against N, growth.

Run `make bench-fleet`. It starts a Ray of its own on this machine (and, for the parts that need a
store, an embedded stack of its own in a temporary folder), prints a table and writes JSON.
"""

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.checkpoint import load_model, save_state
from ddpm.training.loop import TrainState
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.resolve import fetch_model, resolve_model
from orchestrator.attempts.compute import set_up_process
from orchestrator.fleet.fleet import Fleet, FleetHooks
from orchestrator.fleet.plan import PoolPlan
from orchestrator.fleet.pool import WorkerPool
from orchestrator.fleet.table import ShardTable
from orchestrator.jobs.units import plan_shards
from orchestrator.sampling.network import build_denoiser, build_diffusion
from orchestrator.specs.kinds import stored_job
from orchestrator.specs.sample import SampleJob
from orchestrator.stack.embedded import Stack
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store
from tests.benchmarks.fake_work import FakeSetup
from tests.benchmarks.fleet_tolerance import tolerance
from tests.support.memory import peak_mb

MODEL_JOB = "bench-model"
PACE_IMAGES, PACE_STEPS, PACE_MICROBATCH = 384, 50, 32
DDPMCTL = Path(sys.executable).parent / "ddpmctl"
PACE_SHAPES = ((1, 1), (2, 1))  # workers, CPUs of each
PARTS = ("tolerance", "memory", "dispatch", "growth", "pace", "commits")
Row = dict[str, Any]


def run_fleet(
    setup: Any, num_images: int, shard_size: int, workers: int, cpus: float
) -> tuple[Fleet, float]:
    """Run a fleet to its end; return it and the seconds from first shard to last commit."""
    crew = WorkerPool(setup, PoolPlan(nodes=("",) * workers, max_workers=workers, cpus=cpus))
    table = ShardTable(plan_shards(num_images, shard_size), straggler_floor_s=3.0)
    fleet = Fleet(table, crew, FleetHooks(decide=lambda proposal: proposal))
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
    command = [sys.executable, "-m", "tests.benchmarks.bench_fleet", "--memory", str(num_images)]
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
        before = peak_mb()
        _, seconds = run_fleet(FakeSetup(shard_size=shard_size), num_images, shard_size, workers, 1)
        return {
            "images": num_images,
            "shards": num_images // shard_size,
            "warm_peak_mb": before,
            "peak_mb": peak_mb(),
            "grew_mb": peak_mb() - before,
            "seconds": seconds,
        }


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


def pace_job(store_uri: str, workers: int, cpus: int) -> dict[str, Any]:
    """Return the job whose pace is compared with the bare loop."""
    commit = f"{store_uri}/{JobPaths(MODEL_JOB).checkpoint(1)}"
    sampling = {"num_steps": PACE_STEPS, "microbatch_size": PACE_MICROBATCH}
    return {
        "kind": "sample",
        "name": "pace",
        "model": {"checkpoint": commit},
        "num_samples": PACE_IMAGES,
        "shard_size": PACE_MICROBATCH,
        "sampling": {**sampling, "precision": "float32", "compile": False},
        "resources": {"num_workers": workers, "cpus_per_worker": cpus, "gpus_per_worker": 0},
    }


def bare_pace(store_uri: str, threads: int) -> float:
    """Return the images per second of a plain loop in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.bench_fleet",
        "--bare",
        store_uri,
        "--threads",
        str(threads),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def _bare_pace_here(store_uri: str, threads: int) -> float:
    store = open_store(store_uri)
    spec = stored_job(pace_job(store_uri, 1, threads))
    assert isinstance(spec, SampleJob)
    model = resolve_model(store, spec.model)
    network, info = load_model(fetch_model(store, model).folder)
    compute = ComputeDecision(num_threads=threads)
    set_up_process(compute)
    denoiser, diffusion = build_denoiser(network, compute), build_diffusion(info, compute.device)
    seconds = []
    for start in range(-PACE_MICROBATCH, PACE_IMAGES, PACE_MICROBATCH):
        began_at = time.perf_counter()
        indices = torch.arange(start, start + PACE_MICROBATCH).clamp(min=0)
        to_uint8(draw(denoiser, diffusion, spec.sampling, indices, info.image_shape))
        seconds.append(time.perf_counter() - began_at)
    return PACE_IMAGES / sum(seconds[1:])  # the first warms up


def fleet_pace(store_uri: str, workers: int, cpus: int) -> float:
    """Submit the job as a user does; return its images per second.

    They count from the first shard's start to the last one's commit, as the driver logs them.
    """
    job_id = f"pace-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pace.yaml"
        file.write_text(json.dumps(pace_job(store_uri, workers, cpus)))
        verb = [str(DDPMCTL), "submit", str(file), "--id", job_id, "--wait"]
        subprocess.run(verb, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store, found = open_store(store_uri), 0.0
    for segment in store.list_objects(JobPaths(job_id).attempt(1).metrics):
        for line in store.get(segment.key).body.splitlines():
            found = json.loads(line).get("values", {}).get("mean_images_per_s", found)
    return found


def pace(store_uri: str, workers: int, cpus: int, repeats: int) -> Row:
    """Compare a submitted job with the bare loop at equal cores, turn by turn."""
    bare, fleet = [], []
    for _ in range(repeats):
        bare.append(bare_pace(store_uri, workers * cpus))
        fleet.append(fleet_pace(store_uri, workers, cpus))
    return {
        "workers": workers,
        "cpus_per_worker": cpus,
        "bare": bare,
        "fleet": fleet,
        "bare_images_per_s": statistics.median(bare),
        "fleet_images_per_s": statistics.median(fleet),
        "share": statistics.median(fleet) / statistics.median(bare),
    }


def growth() -> Row:
    """Measure from "a second worker could be placed" to "it draws": a hog holds its place first."""

    @ray.remote(num_cpus=1)
    class Hog:
        def hold(self) -> bool:
            return True

    hogs: Any = Hog
    hog = hogs.remote()
    ray.get(hog.hold.remote())
    plan = PoolPlan(nodes=("",), max_workers=2, cpus=1)
    freed_at: list[float] = []
    drew_at: list[float] = []

    def tick(fleet: Fleet) -> None:
        if not freed_at and fleet.totals.images:
            ray.kill(hog)
            freed_at.append(time.monotonic())
        if freed_at and not drew_at and len([m for m in fleet.workers if m.report]) == 2:
            drew_at.append(time.monotonic())
            stop.set()

    stop = threading.Event()
    table = ShardTable(plan_shards(10**9, 10))
    fleet = Fleet(
        table,
        WorkerPool(FakeSetup(), plan),
        FleetHooks(decide=lambda proposal: proposal, tick=tick),
    )
    fleet.run(stop, lambda: 5.0)
    return {"growth_s": drew_at[0] - freed_at[0]}


@contextmanager
def local_ray(num_cpus: int) -> Iterator[None]:
    """Start a Ray for this process alone."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
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
def local_stack(num_cpus: int) -> Iterator[str]:
    """Start a stack of its own; yield the URI of its store, with the environment set."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / ".ddpmctl", num_cpus=num_cpus, num_gpus=0)
        stack.up()
        info = stack.info()
        assert info is not None
        before = dict(os.environ)
        os.environ.update(info.environment)
        try:
            yield os.environ["DDPMCTL_STORE"]
        finally:
            os.environ.clear()
            os.environ.update(before)
            stack.down()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every part and return what it gave; write the file as it goes."""
    images, size, workers = options.images, options.shard_size, options.workers
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg(), "cpu": platform.processor()}
    results: dict[str, Any] = {"machine": machine}

    def note(name: str, take: Callable[[], Any]) -> None:
        if name in options.parts:
            results[name] = take()
            options.output.write_text(json.dumps(results, indent=1))

    note("tolerance", tolerance)
    note("memory", lambda: [memory_of_driver(n, size, workers) for n in (images // 100, images)])
    with local_ray(max(workers, 2)):
        note("dispatch", lambda: dispatch(images, size, workers))
        note("growth", growth)
    if {"pace", "commits"} & set(options.parts):
        with local_stack(2) as uri:
            put_model(uri)
            note("pace", lambda: [pace(uri, *shape, options.repeats) for shape in PACE_SHAPES])
            with local_ray(max(workers, 2)):
                note("commits", lambda: dispatch(options.commit_images, size, workers, uri))
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
    for found in results.get("pace", ()):
        cores = found["workers"] * found["cpus_per_worker"]
        rows.append((f"bare loop, {cores} thread(s)", f"{found['bare_images_per_s']:.2f} images/s"))
        shape = f"{found['workers']} worker(s) of {found['cpus_per_worker']} CPU(s)"
        share = f"{found['fleet_images_per_s']:.2f} images/s, {100 * found['share']:.1f} %"
        rows.append((f"submitted job, {shape}", share))
    for row in results.get("tolerance", ()):
        apart = f"{row['max_abs']:.1e}, {row['max_levels']} levels"
        rows.append((row["what"], "same bits" if row["same_bits"] else apart))
    for label, value in rows:
        print(f"{label:<44} {value:>24}")


def main() -> None:
    """Measure, write as it goes, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10**6)
    parser.add_argument("--commit-images", type=int, default=10**5)
    parser.add_argument("--shard-size", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--memory", type=int, help="only this many images, for the memory")
    parser.add_argument("--output", type=Path, default=Path("bench-fleet.json"))
    parser.add_argument("--bare", help="only the bare loop, from the model of this store")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.bare:
        print(_bare_pace_here(options.bare, options.threads))
        return
    if options.memory:
        print(json.dumps(_memory_here(options.memory, options.shard_size, options.workers)))
        return
    report(measure(options))


if __name__ == "__main__":
    main()
