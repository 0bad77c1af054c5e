"""What a worker of an evaluation does: reads a shard's images and commits their features."""

import threading
from dataclasses import dataclass

import torch

from ddpm.metrics.blocks import Features
from orchestrator.errors import BadInputError
from orchestrator.evaluation.decisions import EVALUATION_DECISIONS
from orchestrator.evaluation.extractors import Extractor, extractor_sha256, open_extractor
from orchestrator.evaluation.feature_shards import FeatureShards
from orchestrator.evaluation.image_sets import ShardReader, open_reader
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import JoinedPlan
from orchestrator.store.objects import ObjectStore, open_store
from orchestrator.store.outages import Backoff, outlast_outage


@dataclass(frozen=True, kw_only=True)
class FeatureSetup:
    """What a worker needs to know to compute features.

    Attributes:
        store_uri: The store.
        cpus: Threads of the worker.
        uses_gpu: Whether it was given a GPU.
    """

    store_uri: str
    cpus: int
    uses_gpu: bool

    def open(self, worker: str) -> "FeatureWorker":
        """Return what the worker of this name works with."""
        del worker
        return FeatureWorker(open_store(self.store_uri), self)


class FeatureWorker:
    """Computes features of the images of both sets."""

    def __init__(self, store: ObjectStore, setup: FeatureSetup) -> None:
        self._store = store
        self._setup = setup
        self._abandon = threading.Event()
        self._readers: list[ShardReader] = []
        self._shards: list[FeatureShards] = []

    def prepare(self, decisions: Decisions | None) -> Decisions:
        """Have nothing to propose: the driver has decided before."""
        if decisions is None:
            raise BadInputError("an evaluation's sets are fixed before its workers start")
        return Decisions()

    def begin(self, decisions: Decisions) -> list[str]:
        """Load the extractor, and get hold of both sets."""
        torch.set_num_threads(self._setup.cpus)
        decided = EVALUATION_DECISIONS.of(decisions.values)
        spec = decided.extractor
        device = torch.device("cuda" if self._setup.uses_gpu else "cpu")
        self._extract: Extractor = open_extractor(spec, device)
        sets = decided.sets
        self._plan = JoinedPlan(tuple(images.plan for images in sets))
        for images in sets:
            self._readers.append(open_reader(self._store, images))
            self._shards.append(FeatureShards(self._store, extractor_sha256(spec), images.sha256))
        return []

    def compute(self, task: ShardTask, watch: Watch) -> Features | None:
        """Return a shard's features; None if the worker was told to stop or to drop it."""
        number, shard = self._plan.locate(task.shard.index)
        watch.show(task.shard.index, 0, 1)
        if watch.is_stopped or watch.is_dropped(task.shard.index):
            return None
        pixels = outlast_outage(lambda: self._readers[number].read(shard), Backoff(), self._abandon)
        features = self._extract(pixels)
        watch.count(1)
        return features

    def keep(self, task: ShardTask, result: Features | None) -> ShardEvent:
        """Commit a shard's features."""
        index = task.shard.index
        if result is None:
            return ShardEvent(index=index, kind="halved")
        number, shard = self._plan.locate(index)
        is_own = outlast_outage(
            lambda: self._shards[number].put(shard, result), Backoff(), self._abandon
        )
        return ShardEvent(index=index, kind="committed", is_own=is_own)
