"""The rounds that the loop makes over its jobs in each step, and what waits in each of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from orchestrator.jobs.troubles import Troubles
from orchestrator.store.objects import ObjectStore

START = "start"
ROUNDS = (
    *("request", "attempt", "drain", "pause", "queue"),
    *(START, "preemption", "lending", "index"),
)

_T = TypeVar("_T")


class Rounds:
    """Contains each job's trouble, by the round of the loop that met it.

    Args:
        store: Where troubles are kept.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._troubles = {what: Troubles(store, what) for what in ROUNDS}

    @contextmanager
    def step(self, is_starting: Callable[[str], bool]) -> Iterator[None]:
        """Make one step of the loop; see `Troubles.round`.

        Args:
            is_starting: Whether an attempt of a job is on its way: what kept Ray from taking it
                is shown until it is up.
        """
        with ExitStack() as rounds:
            for what, troubles in self._troubles.items():
                kept = is_starting if what == START else _is_never
                rounds.enter_context(troubles.round(kept))
            yield

    def serve(self, what: str, job_id: str, turn: Callable[[], _T]) -> _T | None:
        """Do one job's turn in a round; None if something of that job went wrong.

        Raises:
            Exception: What concerns all jobs.
        """
        return self._troubles[what].serve(job_id, turn)


def _is_never(_: str) -> bool:
    return False
