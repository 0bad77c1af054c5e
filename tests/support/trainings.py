"""Trainings run in this process on a store in memory, as their worker runs them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.attempts.attempt import Attempt
from orchestrator.client.prepare import prepared
from orchestrator.client.submit import submit_job
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.lifecycle.state import AttemptRecord, JobState, Placement, Reason
from orchestrator.specs.files import load_job_file
from orchestrator.store.keys import JobPaths
from orchestrator.training.board import BoardClient
from orchestrator.training.worker import TrainingWorker
from tests.support.fakes import MemoryStore

TRAIN = """\
kind: train
name: t
dataset: {source: set.npy, holdout_fraction: 0.25}
model: {channels: 8, channel_multipliers: [1, 8], num_res_blocks: 1, attention_resolutions: []}
diffusion: {num_timesteps: 30}
training: {num_steps: 4, global_batch_size: 4, ema_decays: [0.5], precision: float32}
checkpoints: {every_steps: 3}
tracking: {sample_every_steps: 0}
evaluation: {num_images: 0}
"""


def submit_training(folder: Path, store: MemoryStore, job_id: str, text: str, *sets: str) -> None:
    """Put a job file's training, on sixteen images of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
    np.save(folder / "set.npy", pixels)
    path = folder / f"{job_id}.yaml"
    path.write_text(text)
    file = prepared(load_job_file(path, sets), folder, store)
    submit_job(store, file.spec, job_id, file.asked)


def begun(store: MemoryStore, job_id: str) -> Attempt:
    """Admit a queued training on one CPU and return its next attempt."""
    records = RecordStore(store)
    current, spec = records.read(job_id), read_spec(records, job_id)
    model = resolve_model(store, spec.model_input) if spec.model_input else None
    number = current.record.attempt + 1
    placement = Placement(workers_by_node={"n1": 1}, cpus_per_worker=1, gpus_per_worker=0.0)
    entry = AttemptRecord(number=number, started_at=store.now(), node_ids=("n1",))
    record = replace(
        current.record.moved_to(JobState.STARTING, at=store.now()),
        model=model,
        placement=placement,
        attempt=number,
        attempts=(*current.record.attempts, entry),
    )
    records.write(current, record)
    return Attempt.open(store, job_id, number)


def work(attempt: Attempt) -> None:
    """Do what the worker of an attempt does."""
    TrainingWorker(attempt, 0, 1, BoardClient(lambda _report: False, 0)).run()


def train_to_the_end(store: MemoryStore, job_id: str) -> None:
    """Run a training that SUCCEEDED then."""
    work(begun(store, job_id))
    end(store, job_id, JobState.SUCCEEDED)


def end(store: MemoryStore, job_id: str, state: JobState, reason: Reason | None = None) -> None:
    """Move a job that runs to where it ended, or back into the queue for a reason."""
    records = RecordStore(store)
    current = records.read(job_id)
    record = current.record.with_attempt(reason=reason)
    record = record.moved_to(JobState.RUNNING, at=store.now())
    if state is not JobState.SUCCEEDED:
        record = record.moved_to(JobState.STOPPING, at=store.now(), stop_target=state)
    records.write(current, record.moved_to(state, at=store.now()))


def weights_of(store: MemoryStore, job_id: str, step: int) -> dict[str, str]:
    """Return the hashes of a checkpoint's tensors, by file."""
    commit = CheckpointStore(store, JobPaths(job_id)).find(step)
    assert commit is not None, (job_id, step)
    files = {file.name: file.sha256 for file in commit.files}
    return {name: sha256 for name, sha256 in files.items() if name.endswith(".safetensors")}
