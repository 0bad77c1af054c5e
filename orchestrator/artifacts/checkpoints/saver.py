"""Saves checkpoints while the training goes on."""

import logging
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import CheckpointCommit
from orchestrator.store.outages import Backoff, outlast_outage

logger = logging.getLogger(__name__)


def _nothing() -> None:
    pass


def _no_follow_up(commit: CheckpointCommit) -> None:
    del commit


class BackgroundSaver:
    """One thread that writes, uploads and commits; at most one save is in flight.

    A store that does not answer is waited for as `backoff` says. What goes wrong beyond that is
    raised by the next `submit` or by `wait`, never in the middle of a training step.

    Args:
        checkpoints: Where to.
        attempt: The attempt that saves.
        before_commit: Called on the saver's thread before each commit, for what has to be in the
            store before it, such as the metrics of the steps that won't be done again.
        after_commit: Called on the saver's thread with each commit, to apply retention.
        backoff: How long an outage of the store is waited for.
        scratch: Folder for the local files of a save; the system's own by default.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        attempt: int,
        *,
        before_commit: Callable[[], None] = _nothing,
        after_commit: Callable[[CheckpointCommit], object] = _no_follow_up,
        backoff: Backoff | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._checkpoints = checkpoints
        self._attempt = attempt
        self._before_commit = before_commit
        self._after_commit = after_commit
        self._backoff = backoff or Backoff()
        self._scratch = scratch
        self._abandon = threading.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._save: Future[None] | None = None
        self._last_committed: CheckpointCommit | None = None

    @property
    def busy(self) -> bool:
        """Whether a save is in flight, so that `submit` would wait."""
        return self._save is not None and not self._save.done()

    def submit(
        self, step: int, write: Callable[[Path], object], extra: Mapping[str, object] | None = None
    ) -> None:
        """Begin a save, after the one in flight has ended.

        Args:
            step: Training steps that it holds.
            write: Writes the files into the folder it is given. It runs on the saver's thread
                while the training changes its tensors, so it must hold copies of them.
            extra: Anything to keep in the commit, as JSON.

        Raises:
            OrchestratorError: The save before this one failed; this one was not begun.
        """
        self.wait()
        self._save = self._executor.submit(self._run, step, write, dict(extra or {}))

    def wait(self) -> CheckpointCommit | None:
        """Wait for the save in flight and return the newest commit.

        Raises:
            OrchestratorError: The save failed. Told once.
        """
        save, self._save = self._save, None
        if save is not None:
            save.result()
        return self._last_committed

    def close(self, *, abandon: bool = False) -> None:
        """End the thread, after the save in flight; with `abandon`, outages are not waited for."""
        if abandon:
            self._abandon.set()
        self._executor.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self.close(abandon=kind is not None)

    def _run(self, step: int, write: Callable[[Path], object], extra: Mapping[str, object]) -> None:
        with tempfile.TemporaryDirectory(prefix="ddpmctl-save-", dir=self._scratch) as name:
            folder = Path(name)
            write(folder)
            outlast_outage(self._before_commit, self._backoff, self._abandon)
            commit = outlast_outage(
                lambda: self._checkpoints.commit(step, folder, self._attempt, extra),
                self._backoff,
                self._abandon,
            )
        self._last_committed = commit
        logger.info("step=%d: checkpoint of %d bytes committed", step, commit.size_bytes)
        outlast_outage(lambda: self._after_commit(commit), self._backoff, self._abandon)
