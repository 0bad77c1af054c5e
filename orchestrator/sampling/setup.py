"""What a driver hands to its sample workers, in a module that loads no torch.

The driver draws nothing: with torch it would start seconds later, and hold a processor that its
workers need at that moment.
"""

import importlib
from dataclasses import dataclass

from orchestrator.attempts.address import AttemptAddress
from orchestrator.fleet.work import PreparedWorker
from orchestrator.jobs.decisions import Decisions
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.sample import SampleJob
from orchestrator.store.s3_store import open_store


@dataclass(frozen=True, kw_only=True)
class StoreSetup(AttemptAddress):
    """What a worker needs to know to draw for a job.

    Attributes:
        spec: What was asked.
        model: The checkpoint.
        cpus: Threads of the worker.
        uses_gpu: Whether it was given a GPU.
        num_workers: Workers of the fleet, about, to weigh compiling.
    """

    spec: SampleJob
    model: ResolvedModel
    cpus: int
    uses_gpu: bool
    num_workers: int = 1

    def open(self, worker: str, decisions: Decisions | None) -> PreparedWorker:
        """Load what a worker of this name draws with, and torch, in the worker's process."""
        module = importlib.import_module("orchestrator.sampling.prepared")
        store = open_store(self.store_uri)
        prepared: PreparedWorker = module.PreparedSampler(store, self, worker, decisions)
        return prepared
