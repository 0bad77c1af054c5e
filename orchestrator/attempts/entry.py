"""What the process of every driver begins with."""

import logging
import sys
from collections.abc import Callable

from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.running import run_attempt
from orchestrator.lifecycle.outcome import Outcome


def run_driver(work: Callable[[Attempt], Outcome]) -> int:
    """Run the attempt that the command line names, STORE_URI JOB_ID ATTEMPT; return the exit code.

    Args:
        work: What to do; its errors become the outcome's reason.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    store_uri, job_id, number = sys.argv[1:]
    return run_attempt(store_uri, job_id, int(number), work)
