"""What people see of a fleet: the heartbeat's numbers, and the same as metrics."""

import time
from collections import deque
from datetime import datetime

from orchestrator.attempts.progress import Progress
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.workers import PoolWorker
from orchestrator.jobs.heartbeat import WorkerReport
from orchestrator.lifecycle.phase import Phase
from orchestrator.tracking.writer import MetricWriter

_SHOW_EVERY_S = 1.0
_LOG_EVERY_S = 5.0
_RATE_OVER_S = 60.0


class Pace:
    """How fast something grows, over the last minute."""

    def __init__(self) -> None:
        self._trail: deque[tuple[float, float]] = deque()

    def look(self, now_s: float, done: float) -> float:
        """Note how much is done now; return what is done a second, never below 0."""
        self._trail.append((now_s, done))
        while len(self._trail) > 2 and now_s - self._trail[0][0] > _RATE_OVER_S:
            self._trail.popleft()
        began_s, began = self._trail[0]
        # What a worker had drawn by half goes with it, so less may be done than a minute ago.
        return max(0.0, round((done - began) / (now_s - began_s), 3)) if now_s > began_s else 0.0


class FleetProgress:
    """Shows how far a fleet is.

    Args:
        progress: What the heartbeat shows.
        metrics: Takes the metrics.
        units_per_worker: GPUs of a worker, or its CPUs if it has none.
        unit: "gpu" or "cpu".
        since: When the job was submitted: images done may be the same for long, and fewer again
            after a repair, so the metrics stand over time.
    """

    def __init__(
        self,
        progress: Progress,
        metrics: MetricWriter,
        units_per_worker: float,
        unit: str,
        since: datetime,
    ) -> None:
        self._progress = progress
        self._metrics = metrics
        self._units = units_per_worker
        self._unit = unit
        self._since = since
        self._shown_at = 0.0
        self._logged_at = time.monotonic()
        self._pace = Pace()

    def tick(self, fleet: Fleet) -> None:
        """Show the present state, if it is time."""
        now = time.monotonic()
        if now - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = now
            self._show(fleet, now)
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            self.log(fleet)

    def end(self, fleet: Fleet) -> None:
        """Show and log what the fleet came to."""
        self._show(fleet, time.monotonic())
        self.log(fleet)

    def _show(self, fleet: Fleet, now: float) -> None:
        statistics, progress = fleet.table.statistics(), self._progress
        done = min(statistics.images_done + _half_done(fleet), statistics.num_images)
        if any(worker.hello for worker in fleet.workers):
            progress.phase = Phase.RUNNING
        progress.done, progress.committed = round(done, 2), statistics.images_done
        progress.rate_per_s = self._pace.look(now, done)
        progress.num_unplaced = fleet.num_unplaced
        workers = [_worker(worker) for worker in fleet.workers if worker.is_ready]
        progress.workers = workers
        progress.details = {
            "num_workers": len(workers),
            "steps_in_hand": sum(worker.step or 0 for worker in workers),
            "steps_of_hand": sum(worker.num_steps or 0 for worker in workers),
            "reverse_steps": fleet.totals.reverse_steps,
            "shards_done": statistics.num_done,
            "num_shards": statistics.num_shards,
            "workers_lost": fleet.totals.deaths,
            "shards_given_twice": statistics.num_duplicates,
            **_mean_rate(fleet),
            **self._cost(fleet),
        }

    def _cost(self, fleet: Fleet) -> dict[str, float]:
        totals = fleet.totals
        if not totals.images:
            return {}
        factor = self._units * 1000.0 / totals.images
        return {
            f"useful_{self._unit}_s_per_1000_images": round(totals.useful_s * factor, 3),
            f"redone_{self._unit}_s_per_1000_images": round(totals.redone_s * factor, 3),
        }

    def _time_left(self) -> dict[str, float]:
        progress = self._progress
        if not progress.rate_per_s:
            return {}
        return {"time_left_s": round((progress.total - progress.done) / progress.rate_per_s, 1)}

    def log(self, fleet: Fleet) -> None:
        """Write the present state to the metrics."""
        statistics = fleet.table.statistics()
        values = {
            "images_done": statistics.images_done,
            "reverse_steps": fleet.totals.reverse_steps,
            "images_per_s": self._progress.rate_per_s,
            "workers": len([worker for worker in fleet.workers if worker.is_ready]),
            "workers_lost": fleet.totals.deaths,
            **_mean_rate(fleet),
            **self._time_left(),
            **self._cost(fleet),
        }
        self._metrics.log_over_time(values, self._since)


def _mean_rate(fleet: Fleet) -> dict[str, float]:
    """Return the pace from the first shard's start to the newest commit, in this attempt."""
    began_at, last_at = fleet.totals.first_draw_at, fleet.totals.last_commit_at
    if began_at is None or last_at is None or last_at <= began_at:
        return {}
    return {"mean_images_per_s": round(fleet.totals.images / (last_at - began_at), 4)}


def _half_done(fleet: Fleet) -> float:
    """Return the images' worth of reverse steps done within shards that are not committed."""
    shares: dict[int, float] = {}
    for worker in fleet.workers:
        report = worker.report
        if report is None or report.shard is None or not report.steps_total:
            continue
        if not fleet.table.is_committed(report.shard):
            share = report.steps_done / report.steps_total
            shares[report.shard] = max(share, shares.get(report.shard, 0.0))
    plan = fleet.table.plan
    return sum(share * plan[index].num_images for index, share in shares.items())


def _worker(worker: PoolWorker) -> WorkerReport:
    hello, report = worker.hello, worker.report
    return WorkerReport(
        rank=worker.rank,
        node_id=hello.node_id if hello else "",
        pid=hello.pid if hello else 0,
        shard=report.shard if report else None,
        step=report.steps_done if report else 0,
        num_steps=report.steps_total if report else 0,
    )
