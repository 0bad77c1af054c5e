"""The driver of one attempt of a sample job: a fleet, the set's proof, and its manifest.

Everything that is done lies in the store as committed shards, so an attempt begins by looking at
what is there, and its death loses only what was not committed.
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.artifacts.images import film_strip, image_grid
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.artifacts.samples.labels import by_class
from orchestrator.artifacts.samples.manifest import (
    BackgroundReader,
    SetReader,
    put_manifest,
    read_manifest,
)
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.attempts.attempt import Attempt, register_driver
from orchestrator.attempts.entry import run_driver
from orchestrator.counts import counted
from orchestrator.errors import (
    BadInputError,
    ObjectNotFoundError,
    ShardDamagedError,
    WorkersLostError,
)
from orchestrator.fleet.run import FleetRun
from orchestrator.fleet.table import ShardTable
from orchestrator.jobs.decisions import Decisions, read_decisions
from orchestrator.jobs.units import plan_shards
from orchestrator.lifecycle.causes import headline
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import Placement, Reason
from orchestrator.sampling.origin import tell_origin
from orchestrator.sampling.partial_keys import newest_partials
from orchestrator.sampling.setup import StoreSetup
from orchestrator.specs.sample import SampleJob
from orchestrator.tracking import tags
from orchestrator.tracking.writer import MetricWriter

logger = logging.getLogger(__name__)

STRAGGLER_FLOOR_S = 3.0


@dataclass(frozen=True)
class SampleAttempt:
    """What one attempt of a sample job is made of.

    Attributes:
        attempt: Its identity.
        spec: What was asked.
        placement: What it was given.
        max_workers: As many as it may grow to.
        table: The shards.
        shards: Where they are committed.
        metrics: Takes numbers and images.
    """

    attempt: Attempt
    spec: SampleJob
    placement: Placement
    max_workers: int
    table: ShardTable
    shards: SampleShards
    metrics: MetricWriter

    @classmethod
    def begin(cls, attempt: Attempt, metrics: MetricWriter) -> "SampleAttempt":
        """Look at what is asked and at what is done."""
        spec, record = attempt.spec, attempt.record
        if not isinstance(spec, SampleJob) or record.placement is None:
            raise BadInputError(f"job {record.job_id} is no placed sample job")
        plan = plan_shards(spec.num_samples, spec.shard_size)
        table = ShardTable(plan, straggler_floor_s=STRAGGLER_FLOOR_S)
        shards = SampleShards(attempt.store, attempt.job_paths)
        for index in shards.indices():
            if index < len(plan):
                table.mark_committed(index)
        for index, key in newest_partials(attempt.store, attempt.job_paths, attempt.number):
            table.keep_partial(index, key)
        return cls(
            attempt=attempt,
            spec=spec,
            placement=record.placement,
            max_workers=max(spec.num_workers.max, record.placement.num_workers),
            table=table,
            shards=shards,
            metrics=metrics,
        )

    def draw(self) -> Outcome:
        """Draw what is missing and declare the set whole, or save and stop."""
        decided = read_decisions(self.attempt.store, self.attempt.job_paths)
        with self._reader() as proof:
            if decided is not None:
                proof.start(decided)
            fleet = FleetRun(
                attempt=self.attempt,
                metrics=self.metrics,
                table=self.table,
                setup=self._setup(),
                max_workers=self.max_workers,
                is_stored=lambda shard: self.attempt.store.exists(
                    self.attempt.job_paths.shard(shard.index)
                ),
                decide=lambda proposal: proof.start(self.attempt.decide_once(proposal)),
                decisions=decided,
                check=proof.raise_failure,
            )
            if not fleet.run():
                return self._stopped()
            self.attempt.progress.phase = Phase.PROVING
            return self._whole(proof.result())

    def _reader(self) -> BackgroundReader:
        spec = self.spec
        num_first = max(1, min(spec.num_samples, spec.tracking.num_sample_images))
        return BackgroundReader(
            self.shards,
            plan_shards(spec.num_samples, spec.shard_size),
            self.table.is_committed,
            num_first=num_first,
        )

    def _setup(self) -> StoreSetup:
        attempt, placement = self.attempt, self.placement
        return StoreSetup(
            **vars(attempt.address),
            spec=self.spec,
            model=self._model(),
            cpus=placement.cpus_per_worker,
            uses_gpu=placement.gpus_per_worker > 0,
            num_workers=self.max_workers,
        )

    def _model(self) -> ResolvedModel:
        """Return the model of earlier attempts, else the record's, else look for it."""
        decided = read_decisions(self.attempt.store, self.attempt.job_paths)
        if decided is not None:
            return SET_DECISIONS.of(decided.values).model
        return self.attempt.record.model or resolve_model(self.attempt.store, self.spec.model)

    def _stopped(self) -> Outcome:
        done = self.table.statistics().images_done
        return Outcome(
            stopped=True,
            progress=done,
            message=f"stopped with {counted(done, 'image')} in the store",
        )

    def failed(self, reason: Reason, message: str) -> Outcome:
        """Return what the attempt came to where it could not go on."""
        done = self.table.statistics().images_done
        return Outcome(reason=reason, message=message, progress=done)

    def _whole(self, reader: SetReader) -> Outcome:
        store, job = self.attempt.store, self.attempt.job_paths
        standing = read_manifest(store, job)
        decisions = read_decisions(store, job) or Decisions()
        manifest = reader.manifest(self.attempt.record.job_id, decisions)
        if standing is None or standing.set_sha256 != manifest.set_sha256:
            reader.check_unchanged()
            put_manifest(store, job, manifest)
        num_images = self.spec.num_samples
        self.attempt.progress.done = self.attempt.progress.committed = num_images
        self.metrics.log_tags({tags.SET_SHA256: manifest.set_sha256})
        tell_origin(store, self._model(), self.metrics)
        self._show_images(reader)
        logger.info("set_sha256=%s over %d images", manifest.set_sha256, num_images)
        return Outcome(
            succeeded=True,
            progress=num_images,
            message=f"drew {counted(num_images, 'image')}, SHA-256 {manifest.set_sha256}",
        )

    def _show_images(self, reader: SetReader) -> None:
        """Log and store the grid of the first images, and their trajectories."""
        images = np.concatenate(reader.first_images)
        grid = image_grid(*by_class(images, reader.rule))
        self._show("samples/grid.png", grid)
        frames = list(self._frames())
        if frames:
            self._show("film/reverse-chain.png", film_strip(np.concatenate(frames)))

    def _frames(self) -> Iterator[Any]:
        for shard in self.table.plan:
            if shard.start >= self.spec.sampling.trajectory:
                return
            commit = self.shards.find(shard.index)
            if commit is None or not commit.frames_key:
                continue
            try:
                yield self.shards.read_frames(commit)
            except ObjectNotFoundError as error:
                logger.warning("shard=%d is missing among the trajectories: %s", shard.index, error)

    def _show(self, path: str, png: bytes) -> None:
        name = path.rpartition("/")[2]
        self.attempt.store.put(f"{self.attempt.job_paths.samples}{name}", png)
        self.metrics.log_image(path, png, self.spec.num_samples)


def sample(attempt: Attempt) -> Outcome:
    """Run one attempt of a sample job on the Ray cluster that this process belongs to."""
    # The process leaves Ray when it ends, with its outcome in the store: that may take long.
    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    register_driver(attempt)
    with MetricWriter(attempt.store, attempt.paths) as metrics:
        job = SampleAttempt.begin(attempt, metrics)
        metrics.log_params(job.spec.model_dump(mode="json"))
        try:
            return job.draw()
        except WorkersLostError as error:
            return job.failed(Reason.WORKER_LOST, str(error))
        except ShardDamagedError as error:
            problem = headline(error)
            mend = f"`ddpmctl samples repair {job.attempt.record.job_id}` mends what is damaged"
            return job.failed(Reason.BAD_INPUT, f"{problem}; {mend}")


if __name__ == "__main__":  # the entry point of the Ray Job
    sys.exit(run_driver(sample))
