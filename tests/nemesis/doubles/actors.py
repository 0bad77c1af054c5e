"""What acts by itself in the simulated world, one turn a second."""

from datetime import datetime
from typing import Protocol

from tests.nemesis.doubles.store import View
from tests.support.failing import Death


class Actor:
    """A process, which dies, is stopped, and waits in the middle of a call.

    Args:
        view: The store as it sees it.

    Attributes:
        stopped_until: Until when it does nothing, as after SIGSTOP.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.stopped_until: datetime | None = None
        self._is_busy = False

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return not self.view.is_dead

    def turn(self, now: datetime) -> None:
        """Have it act for a second, unless it waits in the middle of something."""
        is_stopped = self.stopped_until is not None and now < self.stopped_until
        if self._is_busy or is_stopped or not self.is_alive:
            return
        self._is_busy = True
        try:
            self.act(now)
        except Death:
            self.died()
        finally:
            self._is_busy = False

    def act(self, now: datetime) -> None:
        """Do what is to be done in this second."""

    def died(self) -> None:
        """Take note of its death."""


class Chance(Protocol):
    """A source of numbers."""

    def __call__(self, below: int) -> int:
        """Return a number from 0 to below another one."""
