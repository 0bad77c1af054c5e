"""Asks the orchestrator for something and waits until it has read that."""

import time

from orchestrator.client.ensure import ensure_running
from orchestrator.client.status import POLL_EVERY_S, request
from orchestrator.client.surroundings import Say, Surroundings
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.inbox import Verb

REQUEST_TIMEOUT_S = 60.0


def ask_and_wait(around: Surroundings, job_id: str, verb: Verb, say: Say) -> None:
    """Ask the orchestrator for something, have it run, and wait until it has read that.

    Raises:
        OrchestratorError: Nobody reads the request; it stays in the store.
    """
    store = around.store
    key = request(store, job_id, verb)
    ensure_running(around, say)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while store.exists(key):
        if time.monotonic() > deadline:
            raise OrchestratorError(
                f"the orchestrator did not read the request in {REQUEST_TIMEOUT_S:g} s; "
                "see `ddpmctl doctor`"
            )
        time.sleep(POLL_EVERY_S)
