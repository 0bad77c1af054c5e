"""A metric line tells of all steps since the one before."""

from dataclasses import replace
from pathlib import Path

import pytest

from ddpm.training.loop import StepMetrics
from orchestrator.attempts.progress import Progress
from orchestrator.jobs.heartbeat import WorkerReport
from orchestrator.training.board import BoardClient, take_over
from orchestrator.training.window import Window
from orchestrator.training.worker import TrainingWorker
from tests.support.fakes import MemoryStore
from tests.support.trainings import TRAIN, begun, submit_training


def step(number: int, loss: float, quarters: tuple[float | None, ...]) -> StepMetrics:
    """Return what a step of a second measured."""
    return StepMetrics(
        step=number,
        loss=loss,
        loss_by_quarter=quarters,
        grad_norm=float(number),
        learning_rate=0.1 * number,
        images_per_s=16.0,
        data_wait_s=0.25,
    )


def test_losses_are_means_over_the_window() -> None:
    """One batch of a diffusion model says little: its loss depends on the t that were drawn."""
    window = Window(batch_size=16)
    window.add(step(1, 1.0, (2.0, None, None, 1.0)))
    window.add(step(2, 3.0, (4.0, None, 5.0, 2.0)))
    values = window.take()
    assert values["loss"] == 2.0
    assert values["loss_quarter_1"] == 3.0
    assert "loss_quarter_2" not in values  # no image had such a t
    assert values["loss_quarter_3"] == 5.0
    assert values["grad_norm"] == 2.0
    assert values["learning_rate"] == pytest.approx(0.2)
    assert values["images_per_s"] == pytest.approx(16.0)
    assert values["data_wait_s"] == 0.5


def test_the_next_line_knows_nothing_of_the_one_before() -> None:
    """Otherwise a curve would lag behind more and more."""
    window = Window(batch_size=16)
    window.add(step(1, 100.0, (None,) * 4))
    window.take()
    window.add(step(2, 1.0, (None,) * 4))
    assert window.take()["loss"] == 1.0


def test_the_pace_says_what_of_the_time_went_by_waiting_for_images() -> None:
    """A GPU that waits for its data looks as busy as one that does not."""
    window = Window(batch_size=16)
    window.add(step(1, 1.0, (None,) * 4))
    assert window.pace() == {"rate_per_s": 1.0, "data_wait_share": 0.25}
    window.take()
    window.add(replace(step(2, 1.0, (None,) * 4), data_wait_s=0.0))
    assert window.pace() == {"rate_per_s": 1.0, "data_wait_share": 0.0}


def test_what_a_training_waits_for_its_data_reaches_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a worker measures it, and only the driver's progress is shown."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store, reports = MemoryStore(), list[WorkerReport]()

    def send(report: WorkerReport) -> bool:
        reports.append(report)
        return False

    submit_training(tmp_path, store, "t", TRAIN)
    with BoardClient(send, 0) as board:
        TrainingWorker(begun(store, "t"), 0, 1, board).run()
    progress = Progress(unit="steps")
    take_over(progress, [WorkerReport(rank=1), reports[-1]])
    assert 0 <= progress.details["data_wait_share"] <= 1
    assert progress.rate_per_s > 0
