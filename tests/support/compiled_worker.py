"""A sample worker in a process of its own, with a store in a folder: draws what it is told.

`python -m tests.support.compiled_worker FOLDER JOB SHARD[:STEPS] ...` draws shards of a job with a
compiled network, and prints what became of each and after how many reverse steps. With STEPS it is
told to stop after so many, and leaves a partial.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ddpm.compute import ComputeDecision
from ddpm.config import (
    ONE_STEP,
    DiffusionConfig,
    Family,
    SamplingConfig,
    TrainingConfig,
    UNetConfig,
)
from ddpm.training.checkpoint import save_state
from ddpm.training.loop import TrainState
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.jobs.decisions import read_decisions
from orchestrator.jobs.units import plan_shards
from orchestrator.sampling.partial_keys import newest_partials
from orchestrator.sampling.prepared import PreparedSampler
from orchestrator.sampling.setup import StoreSetup
from orchestrator.sampling.worker import SampleWorker
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore

MODEL_JOB = "compiled-model"
SPEC = SampleJob(
    kind="sample",
    name="compiled",
    model=ModelRef(job=MODEL_JOB),
    num_samples=20,
    sampling=SamplingConfig(num_steps=10, microbatch_size=8, precision="bf16", compile=True),
    shard_size=8,
)
PLAN = plan_shards(SPEC.num_samples, SPEC.shard_size)


class FolderStore(MemoryStore):
    """A store that outlives its process, for processes that take turns."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            super().put(path.relative_to(folder).as_posix(), path.read_bytes())

    def put(self, key: str, body: bytes, **conditions: Any) -> str:
        """Write an object, and its file."""
        etag = super().put(key, body, **conditions)
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return etag

    def delete(self, key: str) -> None:
        """Remove an object and its file."""
        super().delete(key)
        (self.folder / key).unlink(missing_ok=True)


def put_model(store: MemoryStore, folder: Path, family: Family = "ddpm") -> None:
    """Commit a small network with random weights."""
    unet, diffusion = UNetConfig(family=family, channels=8, channel_multipliers=(1,)), ONE_STEP
    if family == "ddpm":
        unet, diffusion = replace(unet, num_res_blocks=1), DiffusionConfig(num_timesteps=50)
    state = TrainState(
        unet_config=unet,
        diffusion_config=diffusion,
        config=TrainingConfig(num_steps=1),
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )
    state.ema.add_(torch.randn(state.ema.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    save_state(state, folder)
    CheckpointStore(store, JobPaths(MODEL_JOB)).commit(1, folder, 1, {})
    store.put(JobPaths(MODEL_JOB).spec, b"{}")


class StopAfter(Watch):
    """Stops the drawing after a number of reverse steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def count(self, steps: int) -> None:
        """Count, and stop in time."""
        super().count(steps)
        if self.steps_drawn == self._steps:
            self.stop()


def open_worker(store: FolderStore, job_id: str, attempt: int) -> SampleWorker:
    """Return a worker that has compiled its network."""
    setup = StoreSetup(
        store_uri="",
        job_id=job_id,
        attempt=attempt,
        spec=SPEC,
        model=resolve_model(store, SPEC.model),
        cpus=1,
        uses_gpu=False,
    )
    paths = JobPaths(job_id)
    decisions = read_decisions(store, paths)
    prepared = PreparedSampler(store, setup, f"{attempt}-worker-0", decisions)
    if decisions is None:
        decisions = prepared.proposal
        store.put(paths.decisions, decisions.encode())
    compute = SET_DECISIONS.of(decisions.values).compute
    assert compute["compiled"], compute["reason"]
    return prepared.begin(decisions)


def main() -> None:
    """Draw what the command line says, as the next attempt of the job."""
    store, job_id = FolderStore(Path(sys.argv[1])), sys.argv[2]
    attempt = 1 + len(store.list_folders(f"{JobPaths(job_id).folder}attempts/"))
    worker = open_worker(store, job_id, attempt)
    partials = dict(newest_partials(store, JobPaths(job_id), attempt))
    for order in sys.argv[3:]:
        index, _, steps = order.partition(":")
        task = ShardTask(PLAN[int(index)], partials.get(int(index), ""))
        watch = StopAfter(int(steps)) if steps else Watch()
        event = worker.keep(task, worker.compute(task, watch))
        sys.stdout.write(f"{index} {event.kind} {watch.steps_drawn}\n")


if __name__ == "__main__":
    main()
