"""Makes sure, from outside the cluster, that the orchestrator runs."""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.client.status import orchestrator_is_alive
from orchestrator.cluster.entrypoints import python_entrypoint
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.errors import OrchestratorError, RayUnavailableError
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.store.objects import ObjectStore

ENSURE_TIMEOUT_S = 90.0
LOOK_EVERY_S = 30.0
_PACKAGES = Path(__file__).resolve().parents[2]


def ensure_orchestrator(store: ObjectStore, say: Callable[[str], None]) -> bool:
    """Have the cluster run the store's orchestrator; tell whether it had to be started.

    Raises:
        RayUnavailableError: Ray does not answer, or the orchestrator does not come up.
    """
    if orchestrator_is_alive(store):
        return False
    say("starting the orchestrator on the Ray cluster")
    jobs = RayJobs()
    submission_id = f"ddpmctl-ensure-{secrets.token_hex(4)}"
    jobs.submit(
        submission_id,
        python_entrypoint("orchestrator.controller.actor", store.uri),
        metadata={"kind": "ensure"},
        runtime_env=shipped_code(),
    )
    deadline = time.monotonic() + ENSURE_TIMEOUT_S
    while time.monotonic() < deadline:
        if orchestrator_is_alive(store):
            return True
        if _has_failed(jobs, submission_id):
            break
        time.sleep(0.25)
    tail = jobs.logs(submission_id).strip().splitlines()[-1:] or ["no output"]
    raise RayUnavailableError(f"the orchestrator does not come up on the cluster: {tail[0]}")


class Keeper:
    """Has an orchestrator that is gone started again, for as long as somebody waits for a job.

    Args:
        store: Whose orchestrator.
        say: Takes a line for people.
    """

    def __init__(self, store: ObjectStore, say: Callable[[str], None]) -> None:
        self._store = store
        self._say = say
        self._looked_at = time.monotonic()
        self._was_gone = False

    def look(self) -> None:
        """Look after it, if it is time to."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        try:
            is_gone = not orchestrator_is_alive(self._store)
            if is_gone and self._was_gone:  # once may be a store that was slow for a moment
                ensure_orchestrator(self._store, self._say)
            self._was_gone = is_gone
        except OrchestratorError as error:
            self._say(f"the job waits: {error}")
        self._looked_at = time.monotonic()


def shipped_code() -> dict[str, Any]:
    """Return the runtime environment that carries this code to the cluster, if that is wanted.

    A cluster's image holds the code; with DDPMCTL_SHIP_CODE=1 both packages travel as folders.
    """
    if os.environ.get("DDPMCTL_SHIP_CODE") != "1":
        return {}
    return {"py_modules": [str(_PACKAGES / name) for name in ("ddpm", "orchestrator")]}


def _has_failed(jobs: RayJobs, submission_id: str) -> bool:
    return jobs.status(submission_id) in (DriverStatus.FAILED, DriverStatus.STOPPED)
