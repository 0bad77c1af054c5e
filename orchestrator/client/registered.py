"""What a registered model is by now, for whoever only looks: MLflow is not waited for long."""

import logging
import os
import threading
import time
from collections.abc import Callable

from orchestrator.errors import OrchestratorError
from orchestrator.tracking.registry import registered_checkpoint

PATIENCE_S = 5.0
REST_S = 60.0

logger = logging.getLogger(__name__)


class Registry:
    """Asks MLflow with little patience; after a silence, nothing for a while.

    A file of a hundred jobs asks for each, and would wait a hundred times.

    Args:
        patience_s: How long an answer is waited for.
        clock: Seconds that pass.
    """

    def __init__(
        self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._rests_until_s = float("-inf")

    def checkpoint_now(self, name: str) -> str:
        """Return the URI of the checkpoint that `name@alias` or `name/version` means now.

        "" where there is none by now, or MLflow is not asked from here or does not answer soon:
        the orchestrator asks again before the job starts, and says what is wrong.
        """
        if self._clock() < self._rests_until_s:
            return ""
        _load_client()
        found: list[str] = []
        # MLflow's client tries again for minutes.
        asking = threading.Thread(target=_ask, args=(name, found), daemon=True)
        asking.start()
        asking.join(self._patience_s)
        if asking.is_alive():
            self._rests_until_s = self._clock() + REST_S
        return found[0] if found else ""


def _load_client() -> None:
    """Load MLflow, which takes seconds: not of the patience, and never in two threads at once."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        import mlflow.tracking  # noqa: F401


def _ask(name: str, found: list[str]) -> None:
    try:
        found.append(registered_checkpoint(name))
    except OrchestratorError as error:
        logger.debug("%s is not known: %s", name, error)


_REGISTRY = Registry()


def checkpoint_now(name: str) -> str:
    """Return what `Registry.checkpoint_now` does, for the one MLflow of this process."""
    return _REGISTRY.checkpoint_now(name)
