"""What a registered model is by now, for whoever only looks: MLflow is not waited for long."""

import threading

from orchestrator.errors import OrchestratorError
from orchestrator.tracking.registry import registered_checkpoint

PATIENCE_S = 5.0


def checkpoint_now(name: str, patience_s: float = PATIENCE_S) -> str:
    """Return the URI of the checkpoint that `name@alias` or `name/version` means at this moment.

    "" where there is none by now, or MLflow is not asked from here or does not answer soon: the
    orchestrator asks again before the job starts, and says what is wrong.
    """
    found: list[str] = []

    def ask() -> None:
        try:
            found.append(registered_checkpoint(name))
        except OrchestratorError:
            return

    asking = threading.Thread(target=ask, daemon=True)  # a client that tries again for minutes
    asking.start()
    asking.join(patience_s)
    return found[0] if found else ""
