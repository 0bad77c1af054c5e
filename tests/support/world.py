"""A store, a cluster and an orchestrator whose loop tests run by hand."""

import json
from collections.abc import Mapping
from typing import Any

from ddpm.config import TrainingConfig
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.jobs.heartbeat import OUTCOME
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobRecord
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.specs.resources import TrainResources
from orchestrator.specs.sections import DatasetSpec
from orchestrator.specs.train import TrainJob
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from tests.support.cluster import FakeCluster
from tests.support.fakes import MemoryStore


def train_job(
    name: str = "a", workers: int = 1, asks: Mapping[str, Any] | None = None, **fields: object
) -> TrainJob:
    """Return a small training job; `asks` is what else stands below its resources."""
    return TrainJob(
        kind="train",
        name=name,
        dataset=DatasetSpec(source="digits"),
        training=TrainingConfig(num_steps=10),
        resources=TrainResources(num_workers=workers, **(asks or {})),
        **fields,  # type: ignore[arg-type]
    )


class World:
    """A store, a cluster and an orchestrator.

    Args:
        store: What there is already; None for nothing.
    """

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.cluster = FakeCluster()
        self.records = RecordStore(self.store)
        self.controller = self.new_controller()

    def new_controller(self) -> Controller:
        """Return an orchestrator that has just taken over."""
        self.lease = Lease(self.store, "test", term_s=1e9)
        if not self.lease.acquire():
            self.store.delete(keys.LEASE)
            assert self.lease.acquire()
        controller = Controller(self.store, self.cluster, self.lease)
        controller.take_over()
        return controller

    def step(self, times: int = 1) -> None:
        """Run the loop."""
        for _ in range(times):
            self.store.advance(1)
            self.controller.step()

    def record(self, job_id: str) -> JobRecord:
        """Read a record."""
        return self.records.read(job_id).record

    def state(self, job_id: str) -> str:
        """Read a state."""
        return str(self.record(job_id).state)

    def begin(self, job_id: str, pid: int = 100) -> None:
        """Have the current attempt's driver run and beat."""
        number = self.record(job_id).attempt
        attempt = JobPaths(job_id).attempt(number)
        process = {
            "role": "driver",
            "pid": pid,
            "born_s": 1.0,
            "boot_id": "b",
            "node_id": "n1",
            "host": "h",
        }
        self.store.put(f"{attempt.processes}driver-{pid}.json", json.dumps(process).encode())
        self.beat(job_id, committed=0)
        self.cluster.running.add(pid)

    def beat(self, job_id: str, committed: int) -> None:
        """Write a heartbeat."""
        attempt = JobPaths(job_id).attempt(self.record(job_id).attempt)
        value = {"at": self.store.now().isoformat(), "phase": "running", "committed": committed}
        self.store.put(attempt.heartbeat, json.dumps(value).encode())

    def end(self, job_id: str, outcome: Outcome | None, pid: int = 100) -> None:
        """End the current attempt's driver."""
        number = self.record(job_id).attempt
        if outcome is not None:
            self.store.put(JobPaths(job_id).attempt(number).outcome, OUTCOME.encode(outcome))
        self.cluster.statuses[f"{job_id}.{number}"] = DriverStatus.FAILED
        self.cluster.running.discard(pid)
