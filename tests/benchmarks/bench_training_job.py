"""Measures what a submitted training costs against the bare loop, and how long it takes to begin.

Run `python -m tests.benchmarks.bench_training_job`. It starts an embedded stack of its own in a
temporary folder. The bare loop is `ddpm.training.loop.train_steps` in one process with as many
threads; the job does besides what jobs do: metrics, checkpoints, heartbeats, logs. Both live at
once and take turns of a few seconds: while one steps, the other's process is stopped, so a machine
whose speed changes from minute to minute is the same for both. It is measured with the checkpoints
of jobs/train.yaml, which come every few seconds, and with those of a job that says nothing of them.
Writes `bench-training-job.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from ddpm.compute import Workload, decide_compute
from ddpm.kernels.amx.kernels import kernels_obstacle
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.attempts.compute import set_up_process
from orchestrator.client.datasets import with_dataset
from orchestrator.client.ensure import ensure_orchestrator
from orchestrator.client.status import request
from orchestrator.client.submit import submit_job
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.kinds import load_spec
from orchestrator.specs.sections import CheckpointSpec
from orchestrator.specs.train import TrainJob
from orchestrator.stack.embedded import Stack
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.benchmarks.bench_speed_setups import ROOT

Row = dict[str, Any]
CHECKPOINT_EVERY = (100, CheckpointSpec().every_steps)  # of jobs/train.yaml, and by default
WARM_STEPS = 20
SETTLE_S, TURN_S = 1.0, 8.0
# The AMX kernels where there are any; torch.compile would take longer than the turns.
_COMPILE = "auto" if kernels_obstacle() is None else "false"


class StepTime(NamedTuple):
    """A step of training, and when it had been taken, in seconds since the epoch."""

    step: int
    at: float


def training_spec(store: ObjectStore, cpus: int, checkpoint_every: int) -> TrainJob:
    """Return jobs/train.yaml's training, long, and without grids and torch.compile."""
    overrides = [
        f"checkpoints.every_steps={checkpoint_every}",
        "training.num_steps=100000",
        f"training.compile={_COMPILE}",
        "tracking.sample_every_steps=0",
        f"resources.cpus_per_worker={cpus}",
    ]
    spec = with_dataset(load_spec(ROOT / "jobs" / "train.yaml", overrides), ROOT, store)
    assert isinstance(spec, TrainJob)
    return spec


def bare_loop(store: ObjectStore, spec: TrainJob, cpus: int) -> None:
    """Train in this process, and print each step and its time, in seconds since the epoch."""
    compute = decide_compute(
        Workload(network=spec.model, images_per_pass=spec.training.global_batch_size),
        precision=spec.training.precision,
        compile_request=spec.training.compile,
        num_threads=cpus,
        worth_compiling=False,
        device_kind="cpu",
    )
    set_up_process(compute)
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
    for done in train_steps(state, train_set, until_step=spec.training.num_steps):
        print(done.step, time.time(), flush=True)


def logged_steps(store: ObjectStore, job_id: str) -> list[StepTime]:
    """Return the steps that the job logged."""
    found = []
    for info in store.list_objects(JobPaths(job_id).attempt(1).metrics):
        for line in store.get(info.key).body.splitlines():
            value = json.loads(line)
            if "loss" in value.get("values", {}):
                found.append(StepTime(value["step"], value["at_ms"] / 1000))
    return sorted(found)


def printed_steps(lines: Iterable[str]) -> list[StepTime]:
    """Return the steps that `bare_loop` printed, the last one perhaps not to its end."""
    words = [line.split() for line in lines if line.endswith("\n")]
    return [StepTime(int(step), float(at)) for step, at in words]


def worker_of(store: ObjectStore, job_id: str) -> psutil.Process:
    """Return the process of the job's one worker."""
    (info,) = (
        one
        for one in store.list_objects(JobPaths(job_id).attempt(1).processes)
        if "worker-0" in one.key
    )
    return psutil.Process(json.loads(store.get(info.key).body)["pid"])


def rate_within(times: Sequence[StepTime], turn: tuple[float, float]) -> float:
    """Return the steps per second between the first and the last known step of a turn."""
    within = [one for one in times if turn[0] <= one.at <= turn[1]]
    return (within[-1].step - within[0].step) / (within[-1].at - within[0].at)


def take_turns(processes: Sequence[psutil.Process], turns: int) -> list[list[tuple[float, float]]]:
    """Let one process run at a time, the others stopped; return when the turns of each were."""
    times: list[list[tuple[float, float]]] = [[] for _ in processes]
    for process in processes:
        process.suspend()
    for _ in range(turns):
        for one, process in zip(times, processes, strict=True):
            process.resume()
            time.sleep(SETTLE_S)
            began_at = time.time()
            time.sleep(TURN_S)
            one.append((began_at, time.time()))
            process.suspend()
    for process in processes:
        process.resume()
    return times


def seconds_to_begin(store: ObjectStore, job_id: str) -> float:
    """Return the seconds from the submitting to the first step, by the job's own records."""
    record = RecordStore(store).read(job_id).record
    (event,) = (e for e in RecordStore(store).events(job_id) if e.state == "RUNNING")
    assert isinstance(record.submitted_at, datetime)
    return (event.at - record.submitted_at).total_seconds()


def wait_for_running(store: ObjectStore, job_id: str) -> None:
    """Wait until a job steps."""
    records = RecordStore(store)
    while (state := records.read(job_id).record.state) is not JobState.RUNNING:
        assert not state.has_ended, records.read(job_id).record.message
        time.sleep(0.5)


def end(store: ObjectStore, job_id: str) -> None:
    """Cancel a job and wait until it has ended."""
    request(store, job_id, Verb.CANCEL)
    while not RecordStore(store).read(job_id).record.state.has_ended:
        time.sleep(0.5)


def measure(store: ObjectStore, cpus: int, checkpoint_every: int, turns: int) -> Row:
    """Run a job and the bare loop side by side, in turn."""
    spec, job_id = training_spec(store, cpus, checkpoint_every), f"bench-{cpus}-{checkpoint_every}"
    submit_job(store, spec, job_id)
    ensure_orchestrator(store, lambda line: None)
    wait_for_running(store, job_id)
    command = [sys.executable, "-m", "tests.benchmarks.bench_training_job", "--bare"]
    command += ["--cpus", str(cpus)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as bare:
        assert bare.stdout is not None
        for _ in range(WARM_STEPS):
            bare.stdout.readline()
        job_turns, bare_turns = take_turns(
            [worker_of(store, job_id), psutil.Process(bare.pid)], turns
        )
        bare.terminate()
        bare_times = printed_steps(bare.stdout)
    end(store, job_id)
    job_times, batch = logged_steps(store, job_id), spec.training.global_batch_size
    rounds = [
        {"job": batch * rate_within(job_times, mine), "bare": batch * rate_within(bare_times, its)}
        for mine, its in zip(job_turns, bare_turns, strict=True)
    ]
    which = {"cpus": cpus, "checkpoint_every": checkpoint_every}
    return report(which, rounds, seconds_to_begin(store, job_id))


def report(which: Row, rounds: list[Row], begun_after_s: float) -> Row:
    """Print the medians and return them with all rounds."""
    shares = [row["job"] / row["bare"] for row in rounds]
    found = {
        **which,
        "job_images_per_s": statistics.median(row["job"] for row in rounds),
        "bare_images_per_s": statistics.median(row["bare"] for row in rounds),
        "share": statistics.median(shares),
        "mean_share": statistics.fmean(shares),
        "shares": shares,
        "seconds_to_begin": begun_after_s,
        "rounds": rounds,
    }
    print(
        f"{found['cpus']} CPU(s), a checkpoint every {found['checkpoint_every']} steps: "
        f"job {found['job_images_per_s']:.1f} images/s, "
        f"bare loop {found['bare_images_per_s']:.1f}, "
        f"share {found['share']:.1%} (mean {found['mean_share']:.1%}), "
        f"submit to running {found['seconds_to_begin']:.1f} s",
        flush=True,
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
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("bench-training-job.json"))
    options = parser.parse_args()
    if options.bare:
        own_store = open_store(os.environ["DDPMCTL_STORE"])
        (cpus,) = options.cpus
        bare_loop(own_store, training_spec(own_store, cpus, CHECKPOINT_EVERY[0]), cpus)
        return
    with own_stack(max(options.cpus)) as store:
        found = [
            measure(store, cpus, every, options.turns)
            for cpus in options.cpus
            for every in CHECKPOINT_EVERY
        ]
    options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
