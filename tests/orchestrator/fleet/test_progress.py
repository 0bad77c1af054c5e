"""What people see of a fleet is what it does: shards, steps, workers, pace and cost."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.attempts.progress import Progress
from orchestrator.cli.progress import ProgressView
from orchestrator.client.describe import describe_job, fleet_text
from orchestrator.client.status import JobStatus
from orchestrator.fleet.fleet import Fleet, FleetTotals
from orchestrator.fleet.progress import FleetProgress, Pace
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.lifecycle.state import JobState
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.writer import MetricWriter
from tests.support.fakes import MemoryStore
from tests.support.pool import Desk, fleet_of

ATTEMPT = JobPaths("set").attempt(1)
SUBMITTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
DONE_OF_TEN = {"worker-0": 3, "worker-1": 6}


class Recorder(MetricWriter):
    """Keeps what is logged."""

    logged: dict[str, float]

    def log_over_time(self, metrics: Any, since: Any, at: Any = None) -> None:
        """Keep the newest values."""
        self.logged = {**metrics}


@pytest.fixture
def metrics() -> Iterator[Recorder]:
    """A writer whose values the test can read."""
    with Recorder(MemoryStore(), ATTEMPT) as writer:
        yield writer


def shown_in_the_middle(metrics: Recorder) -> tuple[Progress, dict[str, float]]:
    """Return heartbeat and metrics of a fleet whose two workers are in their first shards."""
    progress = Progress(total=8, unit="images")
    shown = FleetProgress(progress, metrics, 2.0, "gpu", SUBMITTED_AT)
    desk, seen = Desk(), threading.Event()
    found: list[tuple[Progress, dict[str, float]]] = []

    def draw(worker: str, task: ShardTask, watch: Watch) -> None:
        if not seen.is_set():
            watch.show(task.shard.index, DONE_OF_TEN[worker], 10)
            watch.count(DONE_OF_TEN[worker])
            seen.wait(10)

    def look(fleet: Fleet) -> None:
        reports = [worker.report for worker in fleet.workers]
        drawing = [report for report in reports if report and report.shard is not None]
        if len(drawing) == 2 and not seen.is_set():
            shown.end(fleet)
            found.append((replace(progress), dict(metrics.logged)))
            seen.set()

    desk.before_drawing = draw
    fleet, _ = fleet_of(desk, workers=2, num_shards=8, tick=look)
    fleet.run(threading.Event(), lambda: 5.0)
    return found[0]


def status_of(progress: Progress) -> JobStatus:
    """Return the status of a running sample job whose attempt shows this."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return JobStatus(
        job_id="set",
        kind="sample",
        name="set",
        state=JobState.RUNNING,
        attempt=1,
        submitted_at=at,
        changed_at=at,
        confirmed_at=at,
        phase=progress.phase,
        done=progress.done,
        total=progress.total,
        unit=progress.unit,
        workers=tuple(progress.workers),
        details=progress.details,
    )


def test_heartbeat_tells_each_workers_shard_and_step(metrics: Recorder) -> None:
    """Where a worker hangs is the first question when a set does not get ready."""
    beat, logged = shown_in_the_middle(metrics)
    steps = {worker.rank: worker.step for worker in beat.workers}
    assert steps == {0: 3, 1: 6}
    assert len({worker.shard for worker in beat.workers}) == 2
    assert {worker.num_steps for worker in beat.workers} == {10}
    assert beat.details["num_workers"] == 2
    assert (beat.details["steps_in_hand"], beat.details["steps_of_hand"]) == (9, 20)
    assert beat.done == 0.9  # two shards of one image, at 3/10 and 6/10 of the way
    assert beat.committed == 0
    assert logged["reverse_steps"] == 9
    assert logged["workers"] == 2


def test_people_read_workers_steps_pace_and_time_left(
    metrics: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar and `status` say the same as the heartbeat."""
    beat, _ = shown_in_the_middle(metrics)
    status = replace(status_of(beat), rate_per_s=0.5)
    with ProgressView(silent=False) as view:
        view.show(status)
    line = capsys.readouterr().err
    assert "/8 images, 0.5/s, 14s left, 2 workers, 9/20 reverse steps in hand" in line
    unstepped = replace(status, details={**status.details, "steps_in_hand": 0, "steps_of_hand": 0})
    assert fleet_text(unstepped) == "2 workers"  # an evaluation has no steps to tell of
    text = describe_job(status)
    first = next(worker for worker in beat.workers if worker.rank == 0)
    assert f"rank 0, shard {first.shard}, step 3 of 10" in text
    assert "0 of 8 committed, 0 given to a second worker, 0 workers lost" in text
    assert fleet_text(status_of(Progress())) == ""


def test_cost_is_told_per_thousand_images_useful_and_redone(metrics: Recorder) -> None:
    """Two GPUs a worker: ten useful worker-seconds for 500 images are 40 GPU-seconds per 1,000."""
    progress = Progress(total=1000, unit="images")
    fleet, _ = fleet_of(Desk(), num_shards=1000)
    fleet.totals = FleetTotals(
        images=500, useful_s=10.0, redone_s=2.5, first_draw_at=100.0, last_commit_at=120.0
    )
    FleetProgress(progress, metrics, 2.0, "gpu", SUBMITTED_AT).end(fleet)
    assert progress.details["useful_gpu_s_per_1000_images"] == 40.0
    assert progress.details["redone_gpu_s_per_1000_images"] == 10.0
    assert metrics.logged["mean_images_per_s"] == 25.0
    assert metrics.logged["redone_gpu_s_per_1000_images"] == 10.0
    text = describe_job(status_of(progress))
    assert "40 gpu-s useful, 10 redone per 1,000 images" in text


def test_a_worker_that_goes_with_its_shard_makes_no_negative_pace() -> None:
    """What it had drawn by half counts no more; the scheduler and people read the rate."""
    pace = Pace()
    rates = [pace.look(now, done) for now, done in ((0.0, 40.0), (10.0, 90.0), (20.0, 20.0))]
    assert rates == [0.0, 5.0, 0.0]
