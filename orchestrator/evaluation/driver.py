"""The driver of one attempt of an evaluation: features by a fleet, then the numbers.

What is compared is fixed once for the job. Features are committed by shards under the hashes of
extractor and images, so an attempt begins by looking at what is there, also of other jobs.
"""

import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray

from ddpm.metrics.blocks import MappedRows, Rows, chosen
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.images import film_strip
from orchestrator.attempts.attempt import Attempt, register_driver
from orchestrator.attempts.entry import run_driver
from orchestrator.counts import counted
from orchestrator.errors import (
    BadInputError,
    DatasetError,
    ShardDamagedError,
    WorkersLostError,
)
from orchestrator.evaluation.decisions import EVALUATION_DECISIONS, EvaluationDecisions
from orchestrator.evaluation.extractors import extractor_sha256
from orchestrator.evaluation.feature_shards import FeatureShards
from orchestrator.evaluation.image_sets import (
    ImageSet,
    find_sets,
    read_classes,
    read_images,
)
from orchestrator.evaluation.result import (
    EVALUATION_RESULT,
    EvaluationResult,
    NearestPair,
    StoredClasses,
    StoredScore,
)
from orchestrator.evaluation.scoring import Findings, score_features, speed_of, split_reference
from orchestrator.evaluation.statistics import (
    Statistics,
    check_width,
    encode_statistics,
    read_statistics,
)
from orchestrator.evaluation.worker import FeatureSetup
from orchestrator.fleet.run import FleetRun, placement_of
from orchestrator.fleet.table import ShardTable
from orchestrator.jobs.curve import CurvePoint, put_point
from orchestrator.jobs.decisions import Decisions, read_decisions
from orchestrator.jobs.heartbeat import HEARTBEAT
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.units import JoinedPlan, Shard
from orchestrator.lifecycle.causes import headline
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import Reason
from orchestrator.specs.evaluate import EvaluateJob
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking import tags
from orchestrator.tracking.writer import MetricWriter

logger = logging.getLogger(__name__)

STRAGGLER_FLOOR_S = 10.0


@dataclass(frozen=True)
class Evaluation:
    """What one attempt of an evaluation is made of.

    Attributes:
        attempt: Its identity.
        spec: What was asked.
        decisions: What is compared, and how, as it was fixed for the job.
        metrics: Takes numbers and images.
    """

    attempt: Attempt
    spec: EvaluateJob
    decisions: Decisions
    metrics: MetricWriter

    @classmethod
    def begin(cls, attempt: Attempt, metrics: MetricWriter) -> "Evaluation":
        """Fix what is compared, or take what an earlier attempt fixed. Raises: BadInputError."""
        spec = attempt.spec
        if not isinstance(spec, EvaluateJob):
            raise BadInputError(f"job {attempt.record.job_id} is no evaluation")
        standing = read_decisions(attempt.store, attempt.job_paths)
        decisions = standing or attempt.decide_once(_proposal(attempt.store, spec))
        return cls(attempt, spec, decisions, metrics)

    @property
    def decided(self) -> EvaluationDecisions:
        """What was fixed, in its form."""
        return EVALUATION_DECISIONS.of(self.decisions.values)

    @property
    def sets(self) -> tuple[ImageSet, ImageSet]:
        """What is evaluated, and the real images."""
        return self.decided.sets

    def run(self) -> Outcome:
        """Have features computed and compare them, or stop."""
        store, sets = self.attempt.store, self.sets
        plan = JoinedPlan(tuple(images.plan for images in sets))
        features = [FeatureShards(store, self._extractor, images.sha256) for images in sets]
        table = self._table(plan, features)
        placement = placement_of(self.attempt)
        self.attempt.progress.total = plan.num_samples
        setup = FeatureSetup(
            store_uri=store.uri,
            cpus=placement.cpus_per_worker,
            uses_gpu=placement.gpus_per_worker > 0,
        )

        def is_stored(shard: Shard) -> bool:
            number, own = plan.locate(shard.index)
            return features[number].is_committed(own)

        fleet = FleetRun(
            attempt=self.attempt,
            metrics=self.metrics,
            table=table,
            setup=setup,
            max_workers=max(self.spec.num_workers.max, placement.num_workers),
            is_stored=is_stored,
            decisions=self.decisions,
        )
        done = table.is_complete or fleet.run()
        committed = table.statistics().images_done
        self.attempt.progress.done = self.attempt.progress.committed = committed
        if not done:
            return Outcome(
                stopped=True,
                progress=committed,
                message=f"stopped with {counted(committed, 'image')} done",
            )
        self.attempt.progress.phase = Phase.EVALUATING
        with tempfile.TemporaryDirectory(prefix="ddpmctl-features-") as folder:
            findings = self._compare(Path(folder), features)
        self._keep(findings)
        return Outcome(succeeded=True, progress=committed, message=findings.headline())

    @property
    def _extractor(self) -> str:
        return extractor_sha256(self.spec.extractor)

    def _table(self, plan: JoinedPlan, features: list[FeatureShards]) -> ShardTable:
        table = ShardTable(plan, straggler_floor_s=STRAGGLER_FLOOR_S)
        done = [shards.committed() for shards in features]
        for shard in plan:
            number, own = plan.locate(shard.index)
            if (own.start, own.stop) in done[number]:
                table.mark_committed(shard.index)
        return table

    def _compare(self, folder: Path, features: list[FeatureShards]) -> Findings:
        samples, reference = (
            _gathered(folder / f"{number}.npy", images, features[number])
            for number, images in enumerate(self.sets)
        )
        statistics = self._statistics(samples)
        classes = read_classes(self.attempt.store, self.sets[1])
        findings = score_features(self.spec, samples, reference, self.sets[1], classes, statistics)
        train = chosen(reference, split_reference(self.sets[1])[0])
        written = encode_statistics(train, self.spec.extractor)
        if written is not None:
            self.attempt.store.put(self.attempt.job_paths.reference_statistics, written)
        return findings

    def _statistics(self, samples: Rows) -> Statistics | None:
        """Return the published statistics that were asked for. Raises: BadInputError."""
        spec = self.spec.statistics
        if spec is None:
            return None
        pinned = spec.model_copy(update={"sha256": self.decided.statistics_sha256})
        statistics = read_statistics(pinned, self.spec.extractor)
        check_width(statistics, spec, samples)
        return statistics

    def _keep(self, findings: Findings) -> None:
        attempt, (samples, reference) = self.attempt, self.sets
        numbers = {**findings.numbers(), **self._speed()}
        result = EvaluationResult(
            scores={name: StoredScore.of(score) for name, score in findings.scores.items()},
            memorisation=findings.memorisation,
            classes=StoredClasses.of(findings.class_names, findings.classes),
            nearest=[
                NearestPair(sample=int(sample), training_image=int(image))
                for sample, image in zip(findings.shown, findings.neighbours, strict=True)
            ],
            remarks=findings.remarks,
            of=samples,
            against=reference,
            extractor=self.decided.extractor,
            extractor_sha256=self._extractor,
            statistics_sha256=self.decided.statistics_sha256,
            speed=self._speed(),
        )
        attempt.store.put(attempt.job_paths.evaluation, EVALUATION_RESULT.encode(result))
        if attempt.origin.trained_by:
            put_point(attempt.store, attempt.origin.trained_by, self._point(findings.numbers()))
        self.metrics.log(attempt.progress.total, numbers)
        self.metrics.log_tags({tags.SET_SHA256: samples.sha256})
        self._show(findings)
        for line in findings.remarks:
            logger.info("%s", line)
            attempt.tell(line)

    def _point(self, values: dict[str, float]) -> CurvePoint:
        """Return what the checkpoint is worth that the set was drawn from."""
        store, origin = self.attempt.store, self.attempt.origin
        training = JobPaths(origin.trained_by)
        commit = CheckpointStore(store, training).find(origin.at_step)
        return CurvePoint(
            step=origin.at_step,
            at_ms=int(store.now().timestamp() * 1000),
            job_id=self.attempt.record.job_id,
            values=values,
            source=f"{store.uri}/{commit.folder}" if commit else "",
            commit=f"{store.uri}/{training.checkpoint(origin.at_step)}",
            sha256=commit.sha256 if commit else "",
        )

    def _speed(self) -> dict[str, float]:
        job_id = self.sets[0].job_id
        record = RecordStore(self.attempt.store).read(job_id).record
        key = JobPaths(job_id).attempt(record.attempt).heartbeat
        said = HEARTBEAT.value(self.attempt.store, key)
        return speed_of(said) if said else {}

    def _show(self, findings: Findings) -> None:
        """Store and log the samples that lie nearest to a training image, beside it."""
        samples, reference = self.sets
        pairs = np.stack(
            [
                read_images(self.attempt.store, samples, findings.shown),
                read_images(self.attempt.store, reference, findings.neighbours),
            ],
            axis=1,
        )
        png = film_strip(pairs)
        self.attempt.store.put(f"{self.attempt.job_paths.folder}evaluation-nearest.png", png)
        self.metrics.log_image("evaluation/nearest.png", png, self.attempt.progress.total)


def _proposal(store: ObjectStore, spec: EvaluateJob) -> Decisions:
    samples, reference = find_sets(store, spec)
    published = read_statistics(spec.statistics, spec.extractor) if spec.statistics else None
    decided = EvaluationDecisions(
        of=samples,
        against=reference,
        extractor=spec.extractor,
        statistics_sha256=published.sha256 if published else "",
    )
    return Decisions(EVALUATION_DECISIONS.as_json(decided))


def _gathered(path: Path, images: ImageSet, shards: FeatureShards) -> Rows:
    """Return all features of a set in a file: (N, D) float32. Raises: ShardDamagedError."""
    with path.open("wb") as file:
        for shard, part in zip(images.plan, shards.read_all(images.plan), strict=True):
            if shard.start == 0:
                header = np.lib.format.header_data_from_array_1_0(part)
                shape = (images.num_images, part.shape[1])
                np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
            file.write(part.tobytes())
    return MappedRows(path)


def evaluate(attempt: Attempt) -> Outcome:
    """Run one attempt of an evaluation on the Ray cluster that this process belongs to."""
    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    register_driver(attempt)
    with MetricWriter(attempt.store, attempt.paths) as metrics:
        job = Evaluation.begin(attempt, metrics)
        metrics.log_params(job.spec.model_dump(mode="json"))
        try:
            return job.run()
        except WorkersLostError as error:
            return Outcome(reason=Reason.WORKER_LOST, message=str(error))
        except (ShardDamagedError, DatasetError) as error:
            return Outcome(reason=Reason.BAD_INPUT, message=headline(error))


if __name__ == "__main__":  # the entry point of the Ray Job
    sys.exit(run_driver(evaluate))
