"""The orchestrator's word that an attempt is to end, and who hears of it at once."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class StopRequest:
    """The orchestrator's word that an attempt is to end.

    Attributes:
        at: When, by the store's clock.
        grace_s: Time to save the work in.
        reason: Why.
    """

    at: datetime
    grace_s: float
    reason: str | None = None


class StopSignal(threading.Event):
    """Set once an attempt is to end; whoever listens is called then, and need not look."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Have the attempt end. The first call alone reaches the listeners."""
        with self._lock:
            listeners = [] if self.is_set() else list(self._listeners)
            super().set()
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a listener once the attempt is to end; at once if it is already."""
        with self._lock:
            self._listeners.append(listener)
            is_late = self.is_set()
        if is_late:
            listener()

    def forget(self, listener: Callable[[], None]) -> None:
        """Call a listener no more."""
        with self._lock:
            self._listeners.remove(listener)
