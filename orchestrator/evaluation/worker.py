"""What a worker of an evaluation does: reads a shard's images and commits their features."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ddpm.metrics.blocks import Features
from orchestrator.errors import BadInputError
from orchestrator.evaluation.decisions import EVALUATION_DECISIONS, EvaluationDecisions
from orchestrator.evaluation.extractors import Extractor, extractor_sha256, open_extractor
from orchestrator.evaluation.feature_shards import FeatureShards
from orchestrator.evaluation.image_sets import open_reader
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import JoinedPlan
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage
from orchestrator.store.s3_store import open_store


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

    def open(self, worker: str, decisions: Decisions | None) -> "PreparedFeatures":
        """Return what begins to compute. Raises: BadInputError, the driver decided nothing."""
        del worker
        if decisions is None:
            raise BadInputError("an evaluation's sets are fixed before its workers start")
        return PreparedFeatures(open_store(self.store_uri), self)


@dataclass(frozen=True)
class PreparedFeatures:
    """What has nothing to propose: the driver has decided before."""

    store: ObjectStore
    setup: FeatureSetup
    proposal: Decisions = field(default_factory=Decisions)

    def begin(self, decisions: Decisions) -> "FeatureWorker":
        """Load the extractor, and get hold of both sets."""
        torch.set_num_threads(self.setup.cpus)
        device = torch.device("cuda" if self.setup.uses_gpu else "cpu")
        return FeatureWorker(self.store, EVALUATION_DECISIONS.of(decisions.values), device)


class FeatureWorker:
    """Computes features of the images of both sets.

    Args:
        store: Where the sets are, and the features go.
        decided: What is compared, and by which features.
        device: Where they are computed.

    Attributes:
        remarks: None.
    """

    remarks: Sequence[str] = ()

    def __init__(
        self, store: ObjectStore, decided: EvaluationDecisions, device: torch.device
    ) -> None:
        self._abandon = threading.Event()
        self._extract: Extractor = open_extractor(decided.extractor, device)
        self._plan = JoinedPlan(tuple(images.plan for images in decided.sets))
        self._readers = [open_reader(store, images) for images in decided.sets]
        sha256 = extractor_sha256(decided.extractor)
        self._shards = [FeatureShards(store, sha256, images.sha256) for images in decided.sets]

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
