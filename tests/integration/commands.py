"""Runs `ddpmctl` as a user does, and reads its JSON."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

ROOT = Path(__file__).resolve().parents[2]
DDPMCTL = Path(sys.executable).parent / "ddpmctl"

TRAIN = """
kind: train
name: {name}
dataset: {{source: digits}}
model: {{channels: 16, channel_multipliers: [1, 2], num_res_blocks: 1, attention_resolutions: [4]}}
diffusion: {{num_timesteps: 100}}
training: {{num_steps: {steps}, global_batch_size: 12, learning_rate: 1e-3, ema_decay: 0.9,
           precision: float32, compile: false}}
checkpoints: {{every_steps: {every}, keep: 3}}
tracking: {{log_every_steps: 5, sample_every_steps: {samples}, num_sample_images: 4,
           sample_steps: 5}}
evaluation: {{num_images: 8, num_timesteps: 5}}
resources: {{num_workers: {workers}, gpus_per_worker: 0, cpus_per_worker: 1}}
retry: {{worker_lost: {{backoff_s: 0.5}}, driver_lost: {{backoff_s: 0.5}},
        cluster_lost: {{backoff_s: 0.5}}}}
"""

SAMPLE = """
kind: sample
name: {name}
model: {{job: {model}}}
num_samples: 20
shard_size: 8
sampling: {{method: ddim, num_steps: 5, microbatch_size: 8, precision: float32, compile: false}}
resources: {{num_workers: 1, gpus_per_worker: 0, cpus_per_worker: 1}}
"""

_LIVE = ("QUEUED", "STARTING", "RUNNING", "STOPPING")
_TELLING = ("status", "explain", "events", "logs")
_TELL_WITHIN_S = 60.0


class Answer(NamedTuple):
    """What a command came to."""

    exit_code: int
    value: Any
    stderr: str


def ddpmctl(*arguments: str, timeout_s: float = 500.0) -> Answer:
    """Run a verb with `-o json`; one that takes too long fails with what the queue is like."""
    try:
        done = _run(arguments, timeout_s)
    except subprocess.TimeoutExpired as error:
        jobs = json.loads(_run(("list",), _TELL_WITHIN_S).stdout)
        live = [job["job_id"] for job in jobs if job["state"] in _LIVE]
        told = [_run((verb, job), _TELL_WITHIN_S).stdout for job in live for verb in _TELLING]
        raise AssertionError("\n".join([str(error), *told])) from error
    value = json.loads(done.stdout) if done.stdout.strip() else None
    return Answer(done.returncode, value, done.stderr)


def _run(arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DDPMCTL), *arguments, "-o", "json"],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=dict(os.environ),
        check=False,
    )


def submit(folder: Path, text: str, *options: str) -> str:
    """Submit a job file and return the job's id."""
    file = folder / "job.yaml"
    file.write_text(text)
    answer = ddpmctl("submit", str(file), *options)
    assert answer.exit_code == 0, answer
    return str(answer.value["job_id"])


def train_text(
    name: str, steps: int = 40, every: int = 10, workers: int = 1, samples: int = 0
) -> str:
    """Return the job file of a small training."""
    return TRAIN.format(name=name, steps=steps, every=every, workers=workers, samples=samples)


def wait_until(holds: Callable[[], bool], timeout_s: float = 300.0) -> None:
    """Wait for something to become so; asking takes at most a third of the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked_at = time.monotonic()
        if holds():
            return
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(max(0.2, 2 * (time.monotonic() - asked_at)))


def registered_processes(store: ObjectStore, job_id: str, attempt: int, role: str) -> list[int]:
    """Return the pids that a role of an attempt registered."""
    folder = JobPaths(job_id).attempt(attempt).processes
    found = [json.loads(store.get(info.key).body) for info in store.list_objects(folder)]
    return [value["pid"] for value in found if value["role"].startswith(role)]
