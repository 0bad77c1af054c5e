"""Why jobs wait, shown again and again without taking a processor for it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from orchestrator.scheduling.explanation import why_they_wait
from orchestrator.scheduling.snapshot import Snapshot

_REST = 10  # of eleven seconds, ten are left to others


class Reasons:
    """Computes the reasons of a page anew; where that takes long, not at every look.

    Hundreds of nodes and a long line cost a second a look, and a page asks every three seconds.

    Args:
        clock: Seconds that pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._reasons: Mapping[str, str] = {}
        self._asked: frozenset[str] = frozenset()
        self._rests_until_s = 0.0

    def of_jobs(self, snapshot: Snapshot, job_ids: Sequence[str], now: float) -> Mapping[str, str]:
        """Return why jobs wait, by id.

        Args:
            snapshot: What the orchestrator decided from last.
            job_ids: Who is asked about.
            now: Seconds since the epoch.
        """
        with self._lock:
            started_s = self._clock()
            if started_s >= self._rests_until_s or not self._asked.issuperset(job_ids):
                self._reasons = why_they_wait(snapshot, job_ids, now)
                self._asked = frozenset(job_ids)
                ended_s = self._clock()
                self._rests_until_s = ended_s + _REST * (ended_s - started_s)
            return self._reasons
