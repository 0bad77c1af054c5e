"""Jobs of all kinds that take seconds, and what of their result must not differ by a bit."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.samples.manifest import read_manifest
from orchestrator.jobs.prepared_sets import read_prepared
from orchestrator.jobs.records import RecordStore
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

MODEL = "reference-train"
STEPS = 80
LOG_EVERY = 5
# Faults come far oftener than budgets of retries are made for.
_RETRY = """retry: {worker_lost: {max_retries: 99, backoff_s: 0.5, max_backoff_s: 2},
  driver_lost: {max_retries: 99, backoff_s: 0.5, max_backoff_s: 2},
  node_lost: {max_retries: 99, backoff_s: 0.5, max_backoff_s: 2},
  system_error: {max_retries: 99, backoff_s: 0.5, max_backoff_s: 2},
  out_of_memory: {max_retries: 99, backoff_s: 0.5, max_backoff_s: 2},
  storage_unavailable: {max_retries: 99, backoff_s: 0.5, max_backoff_s: 2},
  cluster_lost: {max_retries: 99, backoff_s: 0.5, max_backoff_s: 2}}
resources: {gpus_per_worker: 0, cpus_per_worker: 1, num_workers: 1}
"""
_TRAINING = f"""dataset: {{source: digits, holdout_fraction: 0.1}}
model: {{channels: 16, channel_multipliers: [1, 2], num_res_blocks: 1, attention_resolutions: [4]}}
diffusion: {{num_timesteps: 50}}
training: {{num_steps: {STEPS}, global_batch_size: 12, learning_rate: 1e-3, ema_decay: 0.9,
           precision: float32, compile: false}}
checkpoints: {{every_steps: 10, keep: 3}}
tracking: {{log_every_steps: {LOG_EVERY}, sample_every_steps: 0}}
evaluation: {{num_images: 8, num_timesteps: 5}}
"""
_SAMPLING = f"""model: {{job: {MODEL}}}
num_samples: 96
shard_size: 16
sampling: {{method: ddim, num_steps: 20, microbatch_size: 8, precision: float32, compile: false}}
"""
_EVALUATING = "dataset: {source: digits, holdout_fraction: 0.1}\nextractor: {name: pixels}\nk: 3\n"
_BOUND = f"""model: {{job: {MODEL}}}
dataset: {{source: digits, holdout_fraction: 0.1}}
num_timesteps: 10
num_images: 48
shard_size: 8
"""


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


TEXTS: Mapping[str, str] = {
    "train": f"kind: train\nname: train\n{_TRAINING}{_RETRY}",
    "sample": f"kind: sample\nname: sample\n{_SAMPLING}{_RETRY}",
    "likelihood": f"kind: likelihood\nname: likelihood\n{_BOUND}{_RETRY}",
    "prepare": (
        f"kind: prepare\nname: prepare\ndataset: {{source: photos, channels: rgb}}\n{_RETRY}"
    ),
    "pipeline": (
        "kind: pipeline\nname: pipeline\nsteps:\n"
        f"  draw:\n    kind: sample\n{_indented(_SAMPLING + _RETRY)}"
        f"  judge:\n    kind: evaluate\n    of: {{step: draw}}\n{_indented(_EVALUATING + _RETRY)}"
    ),
    "sweep": (
        "kind: sweep\nname: sweep\nmatrix: {training.seed: [1, 2]}\n"
        f"job:\n    kind: train\n{_indented(_TRAINING + _RETRY)}"
    ),
}


def write_files(folder: Path) -> None:
    """Write the job files and the photos that one of them prepares."""
    photos, noise = folder / "photos", np.random.default_rng(0)
    photos.mkdir(exist_ok=True)
    for number in range(64):
        pixels = noise.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:03d}.png")
    for name, text in TEXTS.items():
        (folder / f"{name}.yaml").write_text(text)


@dataclass(frozen=True)
class Shape:
    """A kind of job.

    Attributes:
        name: Of its file.
        result: What must not differ, of a job that has SUCCEEDED.
    """

    name: str
    result: Callable[[ObjectStore, str], object]


def _weights(store: ObjectStore, job_id: str) -> object:
    commit = CheckpointStore(store, JobPaths(job_id)).find(STEPS)
    assert commit is not None, job_id
    return {f.name: f.sha256 for f in commit.files if f.name.endswith(".safetensors")}


def _images(store: ObjectStore, job_id: str) -> object:
    manifest = read_manifest(store, JobPaths(job_id))
    assert manifest is not None, job_id
    return manifest.set_sha256


def _bound(store: ObjectStore, job_id: str) -> object:
    told = json.loads(store.get(JobPaths(job_id).likelihood).body)
    return {name: told[name] for name in ("means", "curve", "num_images")}


def _prepared(store: ObjectStore, job_id: str) -> object:
    found = read_prepared(store, job_id)
    assert found is not None, job_id
    return found.sha256


def _children(store: ObjectStore, job_id: str) -> list[str]:
    children: Any = RecordStore(store).stored_spec(job_id).spec["children"]
    return [child["job_id"] for child in children]


def _of_pipeline(store: ObjectStore, job_id: str) -> object:
    draw, judge = _children(store, job_id)
    found = json.loads(store.get(JobPaths(judge).evaluation).body)
    return {"images": _images(store, draw), "scores": found["scores"]}


def _of_sweep(store: ObjectStore, job_id: str) -> object:
    return [_weights(store, child) for child in _children(store, job_id)]


SHAPES = (
    Shape("train", _weights),
    Shape("sample", _images),
    Shape("likelihood", _bound),
    Shape("prepare", _prepared),
    Shape("pipeline", _of_pipeline),
    Shape("sweep", _of_sweep),
)
