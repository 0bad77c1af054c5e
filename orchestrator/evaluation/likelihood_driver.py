"""The driver of one attempt of a likelihood: the bound by a fleet, then its mean and its curve."""

import logging
import sys
from dataclasses import dataclass

import ray

from ddpm.process.bound_sums import BoundSums
from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.artifacts.datasets.refs import describe
from orchestrator.attempts.attempt import Attempt, register_driver
from orchestrator.attempts.entry import run_driver
from orchestrator.counts import counted
from orchestrator.errors import (
    BadInputError,
    CheckpointError,
    DatasetError,
    ShardDamagedError,
    WorkersLostError,
)
from orchestrator.evaluation.bound_shards import BoundShards
from orchestrator.evaluation.decisions import BOUND_DECISIONS
from orchestrator.evaluation.likelihood_worker import LikelihoodSetup
from orchestrator.evaluation.result import LIKELIHOOD_RESULT, LikelihoodResult
from orchestrator.fleet.run import FleetRun, placement_of
from orchestrator.fleet.table import ShardTable
from orchestrator.jobs.decisions import read_decisions
from orchestrator.jobs.units import ShardPlan
from orchestrator.lifecycle.causes import headline
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import Reason
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.tracking.writer import MetricWriter

logger = logging.getLogger(__name__)

STRAGGLER_FLOOR_S = 10.0


@dataclass(frozen=True)
class Likelihood:
    """What one attempt of a likelihood is made of.

    Attributes:
        attempt: Its identity.
        spec: What was asked.
        plan: The shards.
        metrics: Takes the numbers.
    """

    attempt: Attempt
    spec: LikelihoodJob
    plan: ShardPlan
    metrics: MetricWriter

    @classmethod
    def begin(cls, attempt: Attempt, metrics: MetricWriter) -> "Likelihood":
        """Look at what is asked. Raises: BadInputError, DatasetError."""
        spec = attempt.spec
        if not isinstance(spec, LikelihoodJob):
            raise BadInputError(f"job {attempt.record.job_id} is no likelihood")
        num_images = spec.count(describe(attempt.store, str(spec.dataset.sha256)).num_images)
        return cls(attempt, spec, ShardPlan(num_images, spec.shard_size), metrics)

    def run(self) -> Outcome:
        """Have the bound of all images computed and say what it is, or stop."""
        shards = BoundShards(self.attempt.store, self.attempt.job_paths)
        table = ShardTable(self.plan, straggler_floor_s=STRAGGLER_FLOOR_S)
        for index in shards.committed():
            if index < len(self.plan):
                table.mark_committed(index)
        self.attempt.progress.total = self.plan.num_samples
        done = table.is_complete or self._fleet(table, shards).run()
        committed = table.statistics().images_done
        self.attempt.progress.done = self.attempt.progress.committed = committed
        if not done:
            message = f"stopped with {counted(committed, 'image')} done"
            return Outcome(stopped=True, progress=committed, message=message)
        self.attempt.progress.phase = Phase.EVALUATING
        means = self._keep(shards.read_all(self.plan))
        self.attempt.progress.scores = {
            name: means[name] for name in ("bpd", "bpd_se") if name in means
        }
        message = f"{means['bpd']:.4f}"
        if "bpd_se" in means:
            message += f" ± {means['bpd_se']:.4f}"
        message += f" bits per dimension of {counted(self.plan.num_samples, 'image')}"
        return Outcome(succeeded=True, progress=committed, message=message)

    def _fleet(self, table: ShardTable, shards: BoundShards) -> FleetRun:
        attempt, placement = self.attempt, placement_of(self.attempt)
        decided = read_decisions(attempt.store, attempt.job_paths)
        model = (
            BOUND_DECISIONS.of(decided.values).model
            if decided
            else attempt.record.model or resolve_model(attempt.store, self.spec.model)
        )
        return FleetRun(
            attempt=attempt,
            metrics=self.metrics,
            table=table,
            setup=LikelihoodSetup(
                **vars(attempt.address),
                spec=self.spec,
                model=model,
                cpus=placement.cpus_per_worker,
                uses_gpu=placement.gpus_per_worker > 0,
            ),
            max_workers=max(self.spec.num_workers.max, placement.num_workers),
            is_stored=shards.is_committed,
            decide=attempt.decide_once,
            decisions=decided,
        )

    def _keep(self, sums: BoundSums) -> dict[str, float]:
        means, curve = sums.means(), sums.curve()
        store, job = self.attempt.store, self.attempt.job_paths
        decided = read_decisions(store, job)
        if decided is None:
            raise ShardDamagedError(f"{job.decisions} is missing")
        result = LikelihoodResult(
            means=means,
            curve=curve,
            num_images=sums.num_images,
            num_draws=sums.num_draws,
            split=self.spec.split,
            dataset=self.spec.dataset,
            model=BOUND_DECISIONS.of(decided.values).model,
        )
        store.put(job.likelihood, LIKELIHOOD_RESULT.encode(result))
        self.metrics.log(sums.num_images, means)
        for t, bits in zip(curve["t"], curve["bits"], strict=True):
            self.metrics.log(int(t), {"bpd_at_t": float(bits)})
        logger.info("bits per dimension: %s", means)
        return means


def measure(attempt: Attempt) -> Outcome:
    """Run one attempt of a likelihood on the Ray cluster that this process belongs to."""
    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    register_driver(attempt)
    with MetricWriter(attempt.store, attempt.paths) as metrics:
        try:
            job = Likelihood.begin(attempt, metrics)
            metrics.log_params(job.spec.model_dump(mode="json"))
            return job.run()
        except WorkersLostError as error:
            return Outcome(reason=Reason.WORKER_LOST, message=str(error))
        except (ShardDamagedError, DatasetError, CheckpointError) as error:
            return Outcome(reason=Reason.BAD_INPUT, message=headline(error))


if __name__ == "__main__":  # the entry point of the Ray Job
    sys.exit(run_driver(measure))
