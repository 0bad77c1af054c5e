"""Measures what a submitted training costs against the bare loop, and how long it takes to begin.

Run `python -m tests.benchmarks.bench_training_job`. It starts an embedded stack of its own in a
temporary folder. The bare loop is `ddpm.training.train_steps` in one process with as many threads;
the job does besides what jobs do: metrics, checkpoints, heartbeats, logs. Both take turns, and both
are timed over the same steps, the first ones left out. Writes `bench-training-job.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from ddpm.compute import decide_compute
from ddpm.data import ImageDataset
from ddpm.training import TrainState, train_steps
from orchestrator.datasets import fetch
from orchestrator.ensure import ensure_orchestrator
from orchestrator.job_dataset import with_dataset
from orchestrator.paths import JobPaths
from orchestrator.records import RecordStore
from orchestrator.spec import TrainJob, load_spec
from orchestrator.stack import Stack
from orchestrator.state import JobState
from orchestrator.storage import ObjectStore, open_store
from orchestrator.submit import submit_job
from tests.benchmarks.bench_speed_sides import ROOT

Row = dict[str, Any]
WARM_STEPS = 20


def training_spec(store: ObjectStore, num_steps: int, cpus: int) -> TrainJob:
    """Return jobs/train.yaml's training, eager, with its checkpoints and without grids."""
    overrides = [
        f"training.num_steps={num_steps}",
        "training.compile=false",
        "tracking.log_every_steps=10",
        "tracking.sample_every_steps=0",
        "evaluation.num_images=8",
        "evaluation.num_timesteps=2",
        f"resources.cpus_per_worker={cpus}",
    ]
    spec = with_dataset(load_spec(ROOT / "jobs" / "train.yaml", overrides), ROOT, store)
    assert isinstance(spec, TrainJob)
    return spec


def bare_rate(store: ObjectStore, spec: TrainJob, cpus: int) -> float:
    """Return the images per second of the bare loop, in this process."""
    compute = decide_compute(
        precision=spec.training.precision,
        compile_request=False,
        num_threads=cpus,
        worth_compiling=False,
        device_kind="cpu",
    )
    torch.set_num_threads(cpus)
    with tempfile.TemporaryDirectory() as cache:
        dataset = ImageDataset.open(fetch(store, str(spec.dataset.sha256), Path(cache)))
        train_set, _ = dataset.split(spec.dataset.holdout_fraction)
    state = TrainState(
        unet_config=spec.model,
        diffusion_config=spec.diffusion,
        config=spec.training,
        image_shape=train_set.image_shape,
        compute=compute,
    )
    began_at = 0.0
    for measured in train_steps(state, train_set, until_step=spec.training.num_steps):
        if measured.step == WARM_STEPS:
            began_at = time.perf_counter()
    taken = spec.training.num_steps - WARM_STEPS
    return taken * spec.training.global_batch_size / (time.perf_counter() - began_at)


def job_rate(store: ObjectStore, job_id: str, spec: TrainJob) -> float:
    """Return the images per second of a job that has ended, by the times of its metric lines."""
    times = dict(_step_times(store, job_id))
    seconds = (times[spec.training.num_steps] - times[WARM_STEPS]) / 1000
    taken = spec.training.num_steps - WARM_STEPS
    return taken * spec.training.global_batch_size / seconds


def _step_times(store: ObjectStore, job_id: str) -> Iterator[tuple[int, int]]:
    """Yield (step, milliseconds) of the lines that tell the loss of a step."""
    for info in store.list_objects(JobPaths(job_id).attempt(1).metrics):
        for line in store.get(info.key).body.splitlines():
            value = json.loads(line)
            if "loss" in value.get("values", {}):
                yield value["step"], value["at_ms"]


def seconds_to_begin(store: ObjectStore, job_id: str) -> float:
    """Return the seconds from the submitting to the first step, by the job's own records."""
    record = RecordStore(store).read(job_id).record
    (event,) = (e for e in RecordStore(store).events(job_id) if e.state == "RUNNING")
    assert isinstance(record.submitted_at, datetime)
    return (event.at - record.submitted_at).total_seconds()


def one_round(store: ObjectStore, num_steps: int, cpus: int, number: int) -> Row:
    """Run the job and then the bare loop, each alone."""
    spec = training_spec(store, num_steps, cpus)
    job_id = f"bench-{cpus}-{number}"
    submit_job(store, spec, job_id)
    ensure_orchestrator(store, lambda line: None)
    while not (record := RecordStore(store).read(job_id).record).state.has_ended:
        time.sleep(2.0)
    assert record.state is JobState.SUCCEEDED, record.message
    command = [sys.executable, "-m", "tests.benchmarks.bench_training_job"]
    command += ["--bare", str(num_steps), "--cpus", str(cpus)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return {
        "job": job_rate(store, job_id, spec),
        "bare": float(done.stdout.strip().splitlines()[-1]),
        "seconds_to_begin": seconds_to_begin(store, job_id),
    }


def report(cpus: int, rounds: list[Row]) -> Row:
    """Print the medians and return them with all rounds."""
    shares = [row["job"] / row["bare"] for row in rounds]
    found = {
        "cpus": cpus,
        "job_images_per_s": statistics.median(row["job"] for row in rounds),
        "bare_images_per_s": statistics.median(row["bare"] for row in rounds),
        "share": statistics.median(shares),
        "shares": shares,
        "seconds_to_begin": statistics.median(row["seconds_to_begin"] for row in rounds),
        "rounds": rounds,
    }
    print(
        f"{cpus} CPU(s): job {found['job_images_per_s']:.1f} images/s, "
        f"bare loop {found['bare_images_per_s']:.1f}, share {found['share']:.1%}, "
        f"submit to running {found['seconds_to_begin']:.1f} s"
    )
    return found


@contextmanager
def own_stack(cpus: int) -> Iterator[ObjectStore]:
    """Start a stack in a temporary folder; yield its store, with the environment set."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / ".ddpmctl", num_cpus=cpus, num_gpus=0)
        environment: Mapping[str, str] = stack.up().environment
        os.environ.update(environment)
        try:
            yield open_store(environment["DDPMCTL_STORE"])
        finally:
            stack.down()


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("bench-training-job.json"))
    options = parser.parse_args()
    if options.bare:
        store = open_store(os.environ["DDPMCTL_STORE"])
        (cpus,) = options.cpus
        print(bare_rate(store, training_spec(store, options.bare, cpus), cpus))
        return
    with own_stack(max(options.cpus)) as store:
        found = [
            report(c, [one_round(store, options.steps, c, n) for n in range(options.repeats)])
            for c in options.cpus
        ]
    options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
