"""Starts attempts of sample jobs on the session's stack, as the orchestrator would."""

import json
import os
import secrets
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.training.checkpoint import save_state
from ddpm.training.loop import TrainState
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import CheckpointCommit
from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.artifacts.samples.manifest import read_manifest
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.jobs.heartbeat import OUTCOME
from orchestrator.jobs.records import RECORD
from orchestrator.lifecycle.attempts import stopping
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import (
    AttemptRecord,
    JobRecord,
    JobState,
    Lending,
    Placement,
    Reason,
)
from orchestrator.specs.resources import SampleResources, WorkerRange
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.support.records import record_of

NUM_SAMPLES = 200
NUM_STEPS = 20
MODEL_JOB = "fleet-model"
WAIT_S = 240.0


def fleets_in(folder: str, model_folder: Path) -> "Fleets":
    """Return fleets with a store of their own on the session's stack, and a model in it."""
    store = open_store(f"{os.environ['DDPMCTL_STORE']}/{folder}")
    put_model(store, model_folder)
    store.put(JobPaths(MODEL_JOB).spec, b"{}")
    return Fleets(store, secrets.token_hex(4))


@dataclass
class Fleets:
    """Starts attempts of sample jobs without an orchestrator."""

    store: ObjectStore
    token: str
    jobs: RayJobs = field(default_factory=RayJobs)
    records: dict[str, JobRecord] = field(default_factory=dict)

    def start(self, job_id: str, spec: SampleJob, num_workers: int) -> JobPaths:
        """Start the next attempt of a job."""
        paths, now = JobPaths(job_id), self.store.now()
        record = self.records.get(job_id)
        if record is None:
            record = record_of(
                job_id,
                now,
                kind="sample",
                name=spec.name,
                state=JobState.RUNNING,
                model=resolve_model(self.store, spec.model),
                lending=Lending.MORE,
            )
        number = record.attempt + 1
        record = replace(
            record,
            attempt=number,
            attempts=(*record.attempts, AttemptRecord(number=number, started_at=now)),
            placement=Placement(
                workers_by_node={"": num_workers}, cpus_per_worker=1, gpus_per_worker=0
            ),
        )
        self.records[job_id] = record
        self.store.put(paths.spec, spec.model_dump_json().encode())
        self.store.put(paths.record, RECORD.encode(record))
        self.jobs.submit(
            self._submission(record),
            f"python -m orchestrator.sampling.driver {self.store.uri} {job_id} {number}",
            metadata={},
        )
        return paths

    def tell_to_stop(self, paths: JobPaths) -> None:
        """Move a job's record as the orchestrator does when somebody cancels it."""
        record = stopping(
            self.records[paths.job_id],
            self.store.now(),
            Reason.CANCELLED_BY_USER,
            "cancelled by a user",
            JobState.CANCELLED,
            30.0,
        )
        self.store.put(paths.record, RECORD.encode(record))

    def outcome(self, paths: JobPaths, within_s: float = WAIT_S) -> Outcome:
        """Wait for what the present attempt comes to, and for its driver's end."""
        self.wait_for_end(paths, within_s)
        record = self.records[paths.job_id]
        return OUTCOME.decode(self.store.get(paths.attempt(record.attempt).outcome).body)

    def wait_for_end(self, paths: JobPaths, within_s: float = WAIT_S) -> None:
        """Wait for the end of the present attempt's driver."""
        submission = self._submission(self.records[paths.job_id])
        wait_until(
            lambda: self.jobs.status(submission).has_ended,
            within_s,
            f"{submission} does not end",
        )

    def _submission(self, record: JobRecord) -> str:
        return f"{self.token}.{record.job_id}.{record.attempt}"

    def set_sha256(self, paths: JobPaths) -> str:
        """Return the hash in a set's manifest."""
        manifest = read_manifest(self.store, paths)
        assert manifest is not None
        return manifest.set_sha256


def wait_until(condition: Callable[[], object], within_s: float, message: str) -> None:
    """Look until something holds."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.1)


def spec_of(
    name: str,
    *,
    num_samples: int = NUM_SAMPLES,
    shard_size: int = 16,
    workers: int = 1,
    **sampling: Any,
) -> SampleJob:
    """Return a small job."""
    chosen = {"num_steps": NUM_STEPS, "microbatch_size": 16, **sampling}
    return SampleJob(
        kind="sample",
        name=name,
        model=ModelRef(job=MODEL_JOB),
        num_samples=num_samples,
        sampling=SamplingConfig(precision="float32", compile=False, **chosen),
        shard_size=shard_size,
        resources=SampleResources(
            num_workers=WorkerRange(min=1, max=workers), cpus_per_worker=1, gpus_per_worker=0
        ),
    )


def put_model(store: ObjectStore, folder: Path, step: int = 1) -> CheckpointCommit:
    """Commit a checkpoint with random weights, a stand-in for a trained one."""
    state = TrainState(
        unet_config=UNetConfig(channels=8, channel_multipliers=(1, 2), attention_resolutions=()),
        diffusion_config=DiffusionConfig(num_timesteps=100),
        config=TrainingConfig(num_steps=1),
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )
    noise = torch.randn(state.ema.shape, generator=torch.Generator().manual_seed(step))
    state.ema.add_(noise, alpha=0.05)
    save_state(state, folder)
    return CheckpointStore(store, JobPaths(MODEL_JOB)).commit(step, folder, 1, {})


def worker_of(fleets: Fleets, paths: JobPaths, index: int) -> str:
    """Return the name of the worker that committed a shard."""
    commit = SampleShards(fleets.store, paths).find(index)
    assert commit is not None
    return commit.worker


def next_author(fleets: Fleets, paths: JobPaths, known: Container[str]) -> str:
    """Wait for a commit of a worker that is not known, and return the worker's name."""
    shards, seen, found = SampleShards(fleets.store, paths), set[int](), list[str]()

    def has_author() -> bool:
        for index in set(shards.indices()) - seen:
            seen.add(index)
            name = worker_of(fleets, paths, index)
            found.extend([name] if name not in known else [])
        return bool(found)

    wait_until(has_author, WAIT_S, "no commit")
    return found[-1]


def registered(fleets: Fleets, paths: JobPaths, name: str) -> dict[str, Any]:
    """Return what a process said of itself: "2-worker-0" is of attempt 2, as is "2-driver"."""
    number, _, role = name.partition("-")
    folder = f"{paths.attempt(int(number)).processes}{role}-"
    value: dict[str, Any] = json.loads(
        fleets.store.get(next(fleets.store.list_objects(folder)).key).body
    )
    return value


def process_of(fleets: Fleets, paths: JobPaths, name: str) -> psutil.Process:
    """Return a worker's or driver's process."""
    return psutil.Process(registered(fleets, paths, name)["pid"])


@contextmanager
def hanging(process: psutil.Process) -> Iterator[None]:
    """Stop a process in its tracks for a while."""
    process.suspend()
    try:
        yield
    finally:
        if process.is_running():
            process.resume()


def kill_author(fleets: Fleets, paths: JobPaths, spared: Container[str]) -> str:
    """Kill -9 the worker of the next commit, which draws its next shard by then."""
    name = next_author(fleets, paths, spared)
    process_of(fleets, paths, name).kill()
    return name


def last_metric(store: ObjectStore, paths: JobPaths, number: int, name: str) -> float:
    """Return the newest value of a metric that an attempt has logged."""
    found = None
    for segment in store.list_objects(paths.attempt(number).metrics):
        for line in store.get(segment.key).body.splitlines():
            found = json.loads(line).get("values", {}).get(name, found)
    assert found is not None, name
    return float(found)
