"""The fleet of an attempt from its placement to its end, whatever its shards hold."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.attempts.attempt import Attempt
from orchestrator.cluster.ray_cluster import TYPE_LABEL
from orchestrator.errors import BadInputError, JobNotFoundError, StoreError
from orchestrator.fleet.actor import Identity
from orchestrator.fleet.fleet import Fleet, FleetHooks
from orchestrator.fleet.plan import PoolPlan
from orchestrator.fleet.pool import WorkerPool
from orchestrator.fleet.progress import FleetProgress
from orchestrator.fleet.table import ShardTable
from orchestrator.fleet.work import WorkerSetup
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import Shard
from orchestrator.lifecycle.state import Placement
from orchestrator.specs.resources import Resources
from orchestrator.tracking.writer import MetricWriter

logger = logging.getLogger(__name__)

_DEFAULT_GRACE_S = 30.0
_OUTCOME_S = 2.0


def _unchanged(proposal: Decisions) -> Decisions:
    return proposal


def placement_of(attempt: Attempt) -> Placement:
    """Return what an attempt was given. Raises: BadInputError."""
    placement = attempt.record.placement
    if placement is None:
        raise BadInputError(f"job {attempt.record.job_id} has no placement")
    return placement


def label_selector(resources: Resources, *, uses_gpu: bool) -> dict[str, str]:
    """Return what a job's nodes must be labelled with, in the words of Ray's label selectors."""
    types = resources.accelerators if uses_gpu else ()
    return {**resources.labels, **({TYPE_LABEL: f"in({','.join(types)})"} if types else {})}


def _nothing() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class FleetRun:
    """What a fleet works on, and whom it asks.

    Attributes:
        attempt: The attempt that it works for.
        metrics: Takes its progress.
        table: The shards.
        setup: Opens the workers' work.
        max_workers: As many as it may grow to.
        is_stored: Whether a shard is in the store; it may fail with a `StoreError`.
        decide: Fixes, once for the job, what the first worker proposes.
        decisions: What was decided for the job; None if nothing yet.
        check: Called several times a second; its errors end the fleet.
    """

    attempt: Attempt
    metrics: MetricWriter
    table: ShardTable
    setup: WorkerSetup
    max_workers: int
    is_stored: Callable[[Shard], bool]
    decide: Callable[[Decisions], Decisions] = _unchanged
    decisions: Decisions | None = None
    check: Callable[[], None] = _nothing

    def run(self) -> bool:
        """Have all shards computed, or stop; return whether all are committed.

        Raises:
            WorkersLostError: Nothing gets done any more.
            OrchestratorError: A worker's error that another worker would meet as well.
        """
        placement = placement_of(self.attempt)
        gpus = placement.gpus_per_worker
        units, unit = (gpus, "gpu") if gpus else (float(placement.cpus_per_worker), "cpu")
        since = self.attempt.record.submitted_at
        progress = FleetProgress(self.attempt.progress, self.metrics, units, unit, since)

        def tick(fleet: Fleet) -> None:
            self.check()
            progress.tick(fleet)

        hooks = FleetHooks(
            decide=self.decide, is_committed=self._is_committed, tell=self._tell, tick=tick
        )
        fleet = Fleet(self.table, self._pool(placement), hooks, self.decisions)
        fleet.run(self.attempt.stop, self._grace_s)
        progress.end(fleet)
        self._beat()
        return self.table.is_complete

    def _pool(self, placement: Placement) -> WorkerPool:
        attempt = self.attempt
        nodes = [node for node, count in placement.workers_by_node.items() for _ in range(count)]
        plan = PoolPlan(
            nodes=tuple(nodes),
            max_workers=self.max_workers,
            cpus=placement.cpus_per_worker,
            gpus=placement.gpus_per_worker,
            memory_gb=placement.memory_gb_per_worker,
            labels=label_selector(attempt.spec.resources, uses_gpu=placement.gpus_per_worker > 0),
            identity=Identity(**vars(attempt.address), rank=0),
            lending=lambda: attempt.allowance.lending,
            tell=self._tell,
        )
        return WorkerPool(self.setup, plan)

    def _is_committed(self, shard: Shard) -> bool:
        try:
            return self.is_stored(shard)
        except StoreError as error:
            logger.warning("shard=%d is computed again, unseen: %s", shard.index, error)
            return False

    def _tell(self, message: str) -> None:
        try:
            self.attempt.tell(message)
        except StoreError as error:
            logger.warning("could not write the event %r: %s", message, error)

    def _beat(self) -> None:
        """Show at once how the fleet ended: the attempt may be over before the next beat."""
        try:
            self.attempt.beat()
        except StoreError as error:
            logger.warning("the last heartbeat is not written: %s", error)

    def _grace_s(self) -> float:
        try:
            request = self.attempt.stop_request()
        except (StoreError, JobNotFoundError):
            request = None
        grace_s = request.grace_s if request else _DEFAULT_GRACE_S
        return max(1.0, grace_s - _OUTCOME_S)
