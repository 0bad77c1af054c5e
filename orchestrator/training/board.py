"""The board between a driver and its workers: they report, and learn that they are to stop.

The board is a Ray actor of the driver, so it goes when the driver goes; where there is one worker,
it is that worker. Workers talk to it from a thread, never from the step loop.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.progress import Progress
from orchestrator.jobs.heartbeat import WorkerReport

# The first rank hears of a stop for all: the ranks agree on it in each step.
FIRST_REPORTS_EVERY_S = 0.25
OTHERS_REPORT_EVERY_S = 0.5

# Takes what a worker has to say; returns whether it is to stop.
SendReport = Callable[[WorkerReport], bool]

logger = logging.getLogger(__name__)


class AttemptBoard:
    """What the workers of an attempt last said; made a Ray actor by the driver.

    Args:
        num_workers: How many will report.
    """

    def __init__(self, num_workers: int) -> None:
        self._reports: list[WorkerReport | None] = [None] * num_workers
        self._stop = False

    def report(self, report: WorkerReport) -> bool:
        """Take a worker's word; return whether it is to stop."""
        self._reports[report.rank] = report
        return self._stop

    def request_stop(self) -> None:
        """Have all workers stop after the step that they are in."""
        self._stop = True

    def reports(self) -> list[WorkerReport | None]:
        """Return what each worker said last, by rank."""
        return self._reports


class BoardClient:
    """A worker's side: reports in the background, and knows whether to stop.

    Args:
        send: `AttemptBoard.report`, wherever the board is.
        rank: This worker.
    """

    def __init__(self, send: SendReport, rank: int) -> None:
        self._send_report = send
        self._every_s = OTHERS_REPORT_EVERY_S if rank else FIRST_REPORTS_EVERY_S
        self._report = WorkerReport(rank=rank)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def say(self, **changes: Any) -> None:
        """Change fields of the `WorkerReport` that is sent next; any thread may."""
        with self._lock:
            self._report = replace(self._report, **changes)

    def stop_requested(self) -> bool:
        """Tell whether the attempt is to stop."""
        return self._stop.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=5)
        self.send()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self.send()

    def send(self) -> None:
        """Report now, and hear whether to stop."""
        import ray

        try:
            if self._send_report(self._report) and not self._stop.is_set():
                logger.info("asked to stop: this step is the last one")
                self._stop.set()
        except (ray.exceptions.RayError, TimeoutError) as error:
            logger.warning("the driver's board does not answer: %s", error)


class BoardReader:
    """The driver's side: turns reports into the attempt's progress, and hands the stop on.

    Args:
        attempt: Whose progress it is.
        board: The actor.
        every_s: Seconds between two looks.
    """

    def __init__(self, attempt: Attempt, board: Any, every_s: float = 1.0) -> None:
        self._attempt = attempt
        self._board = board
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def __enter__(self) -> Self:
        self._attempt.stop.listen(self.hand_stop_on)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._attempt.stop.forget(self.hand_stop_on)
        self._ended.set()
        self._thread.join(timeout=5)
        if kind is None:  # what the workers said last came after the look before
            self._try_to_look()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            if not self._try_to_look():
                time.sleep(1.0)

    def hand_stop_on(self) -> None:
        """Have the workers stop, too."""
        self._board.request_stop.remote()  # waits for no answer: it is the heartbeat that calls

    def _try_to_look(self) -> bool:
        import ray

        try:
            self._look()
        except (ray.exceptions.RayError, TimeoutError) as error:
            logger.warning("the board does not answer: %s", error)
            return False
        return True

    def _look(self) -> None:
        import ray

        reports = [r for r in ray.get(self._board.reports.remote(), timeout=10) if r]
        if reports:
            take_over(self._attempt.progress, reports)


def take_over(progress: Progress, reports: Sequence[WorkerReport]) -> None:
    """Turn what workers reported, of which there are some, into the progress of their attempt."""
    first = min(reports, key=lambda report: report.rank)
    progress.workers = reports
    progress.phase = first.phase or progress.phase
    progress.done = progress.done if first.done is None else first.done
    progress.rate_per_s = first.rate_per_s or 0.0
    progress.scores = first.scores
    if first.data_wait_share is not None:
        progress.details = {"data_wait_share": first.data_wait_share}
    progress.committed = max(progress.committed, first.committed or 0)
