"""A thread whose failure is not lost: its owner meets it at the next call."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class WatchedThread(threading.Thread):
    """Runs in the background; what ends it is logged, and raised where its owner asks.

    Args:
        work: What to do; it waits out by itself what it can wait out.
        name: Of the thread.
        on_failure: Called after a failure, as to wake whoever waits for the work.
    """

    def __init__(
        self, work: Callable[[], None], name: str, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._on_failure = on_failure
        self._failure: BaseException | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it ended by an error."""
        return self._failure is not None

    def run(self) -> None:
        """Do the work, and keep what goes wrong."""
        try:
            self._work()
        except BaseException as error:
            # The top of a thread: its owner raises it, or nobody would ever hear of it.
            logger.exception("thread %s ends", self.name)
            self._failure = error
            self._on_failure()

    def raise_failure(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure
