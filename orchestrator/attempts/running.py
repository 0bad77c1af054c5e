"""Runs an attempt to its outcome.

A driver's process calls `run_attempt`, which makes sure that the attempt is the current one,
ships its log, beats while the work runs, and puts the outcome in the store exactly once.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.attempts.attempt import Attempt, register_process
from orchestrator.attempts.log_shipper import LogShipper
from orchestrator.errors import (
    JobNotFoundError,
    OrchestratorError,
    StoreError,
)
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.causes import failed_ranks, headline, reason_of, unwrapped
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState
from orchestrator.lifecycle.steps import is_ended_by_ray
from orchestrator.store.s3_store import open_store

HEARTBEAT_EVERY_S = 3.0
STOP_POLL_EVERY_S = 0.5
DRIVER_ANSWER_S = 20.0
ENDED_BY_RAY_WITHIN_S = 10.0

logger = logging.getLogger(__name__)


def run_attempt(
    store_uri: str, job_id: str, number: int, work: Callable[[Attempt], Outcome]
) -> int:
    """Run one attempt to its outcome and return the process's exit code.

    Args:
        store_uri: The store.
        job_id: The job.
        number: The attempt.
        work: What to do; its errors become the outcome's reason.
    """
    store = open_store(store_uri, answer_within_s=DRIVER_ANSWER_S)
    attempt = Attempt.open(store, job_id, number)
    register_process(store, attempt.paths, "driver")
    # Once more: whoever gave the attempt up in between has not seen this process.
    attempt = Attempt.open(store, job_id, number)
    with LogShipper(store, attempt.paths, "driver", 0), _heartbeat(attempt):
        try:
            outcome = work(attempt)
        except Exception as error:
            is_ours = isinstance(unwrapped(error), OrchestratorError)
            logger.error(
                "job=%s attempt=%d ends: %s", job_id, number, headline(error), exc_info=not is_ours
            )
            outcome = _failed(error, attempt)
        _beat_last(attempt)
        attempt.put_outcome(outcome)
    return _exit_code(outcome, attempt)


def _beat_last(attempt: Attempt) -> None:
    """Say how far the attempt came before its end is read: what it is worth is known only now."""
    try:
        attempt.beat()
    except StoreError as error:  # the outcome says what matters, and waits longer
        logger.warning("job=%s its last heartbeat is lost: %s", attempt.record.job_id, error)


def _exit_code(outcome: Outcome, attempt: Attempt) -> int:
    """Return what makes Ray's own list of jobs say of the attempt what the record says.

    Only Ray can note that a job was stopped, so one that was waits for Ray to end it.
    """
    if outcome.succeeded:
        return 0
    if is_ended_by_ray(outcome, _stop_reason(attempt)):
        time.sleep(ENDED_BY_RAY_WITHIN_S)  # SIGTERM comes in between
        return 128 + signal.SIGTERM
    return 1


def _stop_reason(attempt: Attempt) -> str | None:
    try:
        request = attempt.stop_request()
    except (StoreError, JobNotFoundError):
        return None
    return request.reason if request else None


def _failed(error: Exception, attempt: Attempt) -> Outcome:
    failed = failed_ranks(error)
    nodes = {worker.node_id for worker in attempt.progress.workers if worker.rank in failed}
    return Outcome(
        reason=reason_of(error),
        message=headline(error),
        progress=attempt.progress.committed,
        failed_node_ids=tuple(sorted(node for node in nodes if node)),
    )


@contextmanager
def _heartbeat(attempt: Attempt) -> Iterator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=beat_until, args=(attempt, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)


def beat_until(attempt: Attempt, ended: threading.Event) -> None:
    """Beat, and hand on a stop that the record asks for, until `ended` is set."""
    since_beat_s, shown_phase = HEARTBEAT_EVERY_S, None
    while not ended.wait(STOP_POLL_EVERY_S):
        since_beat_s += STOP_POLL_EVERY_S
        try:
            phase = attempt.progress.phase
            if since_beat_s >= HEARTBEAT_EVERY_S or phase != shown_phase:
                attempt.beat()
                since_beat_s, shown_phase = 0.0, phase
            if not attempt.stop.is_set() and must_stop(attempt):
                attempt.stop.set()
        except StoreError as error:
            logger.warning("job=%s heartbeat is late: %s", attempt.record.job_id, error)
        except Exception:
            # The top of a thread: without it no stop is heard, and the attempt looks dead.
            logger.exception("job=%s heartbeat is late", attempt.record.job_id)


def must_stop(attempt: Attempt) -> bool:
    """Read the record: note what room the attempt may use, and tell whether it is to end."""
    try:
        current = RecordStore(attempt.store).read(attempt.record.job_id).record
    except JobNotFoundError:  # somebody deleted it
        return True
    # A record that is read as none for a moment looks like that of no attempt at all.
    if current.attempt == attempt.number:
        attempt.allowance.lending = current.lending
    works = current.state in (JobState.STARTING, JobState.RUNNING)
    return current.attempt > attempt.number or (current.attempt == attempt.number and not works)
