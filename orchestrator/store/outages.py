"""Waiting out a store that does not answer, for a while and not for ever."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.errors import StoreUnavailableError

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """How long to go on trying, and with which pauses.

    Attributes:
        first_s: The first pause; each further one is twice as long.
        longest_s: No pause is longer.
        patience_s: No attempt is made after that time.
    """

    first_s: float = 1.0
    longest_s: float = 30.0
    patience_s: float = 600.0

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between attempts until the patience is used up."""
        pause_s, end = self.first_s, time.monotonic() + self.patience_s
        while (left_s := end - time.monotonic()) > 0:
            yield min(pause_s, left_s)
            pause_s = min(2 * pause_s, self.longest_s)


def outlast_outage(action: Callable[[], T], backoff: Backoff, stop: threading.Event) -> T:
    """Do something with the store, again and again while the store does not answer.

    Args:
        action: What to do; it may have happened although it raised, so it must be idempotent.
        backoff: For how long.
        stop: Ends the waiting at once.

    Raises:
        StoreUnavailableError: The store did not come back in time, or `stop` was set.
    """
    for pause_s in backoff.pauses():
        try:
            return action()
        except StoreUnavailableError as error:
            logger.warning("trying again in %.0f s: %s", pause_s, error)
            if stop.wait(pause_s):
                break
    return action()
