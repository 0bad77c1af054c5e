"""The driver of one attempt of a preparation: lists the source, has its units read, names the set.

All that is done lies in the store as committed units of the preparation, under a name that follows
from the source and how it is read. So an attempt begins by looking at what is there, also of other
jobs, and of a submit that prepared the same source on its own machine.
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import ray

from orchestrator.artifacts.datasets.cutting import PREPARATION_NAME, Plan, PreparationName
from orchestrator.artifacts.datasets.finishing import abandon
from orchestrator.artifacts.datasets.ingest import Progress, complete, ingest_as_asked
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.preparing import Preparation
from orchestrator.artifacts.datasets.reading import Reading, decoder_versions
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.artifacts.datasets.shared_listing import share_listing
from orchestrator.attempts.attempt import Attempt, register_driver
from orchestrator.attempts.entry import run_driver
from orchestrator.cluster.cache import cache_folder
from orchestrator.counts import counted
from orchestrator.errors import BadInputError, DatasetError
from orchestrator.fleet.run import FleetRun, placement_of
from orchestrator.fleet.table import ShardTable
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.prepared_sets import PREPARED_SET, PreparedSet
from orchestrator.jobs.units import Shard
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.preparation.worker import PrepareSetup
from orchestrator.specs.prepare import PrepareJob
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking.writer import MetricWriter

logger = logging.getLogger(__name__)

STRAGGLER_FLOOR_S = 30.0
_UNITS_PER_WORKER = 4  # so that none waits long for the last one
_READ_AHEAD = 4  # chunks in the driver's memory while they are hashed


class PreparationStoppedError(Exception):
    """The attempt was told to stop before all units were committed, or only to look."""


@dataclass(frozen=True)
class UnitPlan:
    """The units of a preparation as a fleet numbers them."""

    plan: Plan

    @property
    def num_samples(self) -> int:
        """Images in all."""
        return self.plan.num_images

    def __len__(self) -> int:
        return self.plan.num_units

    def __getitem__(self, index: int) -> Shard:
        return Shard(index, *self.plan.bounds(index))

    def __iter__(self) -> Iterator[Shard]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class PrepareAttempt:
    """What one attempt of a preparation is made of.

    Attributes:
        attempt: Its identity.
        spec: What was asked.
        metrics: Takes the numbers.
        lines: What was noticed of the source.
    """

    attempt: Attempt
    spec: PrepareJob
    metrics: MetricWriter
    lines: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, attempt: Attempt, metrics: MetricWriter) -> "PrepareAttempt":
        """Look at what is asked. Raises: BadInputError."""
        if not isinstance(attempt.spec, PrepareJob):
            raise BadInputError(f"job {attempt.record.job_id} is no preparation")
        return cls(attempt, attempt.spec, metrics)

    def run(self) -> Outcome:
        """Have the source prepared and say what came of it, or stop. Raises: DatasetError."""
        progress = self.attempt.progress
        try:
            ref = ingest_as_asked(
                self.spec.dataset,
                self.attempt.store,
                cache_folder("datasets"),
                needs_labels=False,
                say=self._say,
                prepare=self._prepare,
            )
        except PreparationStoppedError:
            done = int(progress.committed)
            if self.attempt.origin.is_smoke:
                message = f"its first image of {counted(progress.total, 'image')} can be read"
                return Outcome(succeeded=True, message=message)
            message = f"stopped with {counted(done, 'image')} prepared"
            return Outcome(stopped=True, progress=done, message=message)
        self._keep(ref)
        progress.total = ref.num_images
        progress.done = progress.committed = ref.num_images
        message = "; ".join([f"data set {ref.sha256[:12]}", *self.lines])
        return Outcome(succeeded=True, progress=ref.num_images, message=message)

    def _say(self, line: str) -> None:
        self.lines.append(line)
        self.attempt.tell(line)

    def _prepare(
        self, source: Source, reading: Reading, store: ObjectStore, progress: Progress
    ) -> DatasetRef:
        """Have a fleet prepare what is not; then hash all of it in order.

        Raises:
            PreparationStoppedError: It was told to stop, or only to look.
            DatasetError: Images cannot be used.
        """
        num_units = _UNITS_PER_WORKER * self.spec.num_workers.max
        preparation = Preparation(source, reading, store, num_units=num_units)
        self.attempt.progress.total = preparation.plan.num_images
        if self.attempt.origin.is_smoke:
            raise PreparationStoppedError
        name = PreparationName(preparation.paths.preparation)
        store.put(self.attempt.job_paths.preparation, PREPARATION_NAME.encode(name))
        table = ShardTable(UnitPlan(preparation.plan), straggler_floor_s=STRAGGLER_FLOOR_S)
        for unit in preparation.committed():
            table.mark_committed(unit)
        if not table.is_complete:
            self._have_read(preparation, table)
        self.attempt.progress.phase = Phase.PROVING
        return complete(preparation, progress, _READ_AHEAD)

    def _have_read(self, preparation: Preparation, table: ShardTable) -> None:
        """Have a fleet read all units. Raises: PreparationStoppedError, DatasetError."""
        share_listing(preparation.source, self.attempt.store, preparation.paths)
        try:
            is_complete = self._fleet(preparation, table).run()
        except DatasetError:
            abandon(preparation)  # it would fail again
            raise
        if not is_complete:
            raise PreparationStoppedError

    def _fleet(self, preparation: Preparation, table: ShardTable) -> FleetRun:
        attempt, placement = self.attempt, placement_of(self.attempt)
        statistics = table.statistics()
        left = statistics.num_shards - statistics.num_done
        setup = PrepareSetup(
            store_uri=attempt.store.uri,
            source=self.spec.dataset.source,
            reading=preparation.reading,
            plan=preparation.plan,
            preparation=preparation.paths.preparation,
            decoders=decoder_versions(),
            cpus=placement.cpus_per_worker,
        )

        def is_stored(shard: Shard) -> bool:
            return attempt.store.exists(preparation.paths.unit(shard.index))

        return FleetRun(
            attempt=attempt,
            metrics=self.metrics,
            table=table,
            setup=setup,
            max_workers=max(placement.num_workers, min(self.spec.num_workers.max, left)),
            is_stored=is_stored,
            decisions=Decisions(),
        )

    def _keep(self, ref: DatasetRef) -> None:
        """Write down which set came of it: its images and, where it has some, its labels."""
        store, source = self.attempt.store, self.spec.dataset.source
        labelled = ref.sha256 if ref.class_names else ""
        prepared = PreparedSet(sha256=ref.images, labelled_sha256=labelled, source=source)
        store.put(self.attempt.job_paths.dataset, PREPARED_SET.encode(prepared))
        self.metrics.log_dataset(
            source.rstrip("/").rpartition("/")[2] or "dataset",
            digest=ref.sha256,
            source=source,
            context="preparation",
            profile=ref.profile,
        )


def prepare(attempt: Attempt) -> Outcome:
    """Run one attempt of a preparation on the Ray cluster that this process belongs to."""
    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    register_driver(attempt)
    with MetricWriter(attempt.store, attempt.paths) as metrics:
        job = PrepareAttempt.begin(attempt, metrics)
        metrics.log_params(job.spec.model_dump(mode="json"))
        return job.run()


if __name__ == "__main__":  # the entry point of the Ray Job
    sys.exit(run_driver(prepare))
