"""Tells MLflow about all jobs, beside the orchestrator's loop: MLflow may be slow or down."""

import logging
import os
import threading
import time
from functools import partial

from orchestrator.errors import (
    ConditionFailedError,
    JobNotFoundError,
    OrchestratorError,
    TrackingError,
)
from orchestrator.jobs.index import live_attempts
from orchestrator.jobs.marks import Mark, Marked, drop_orphan, marked_jobs
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.troubles import Troubles, concerns_all
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from orchestrator.tracking.carrier import TrackingCarrier
from orchestrator.tracking.mlflow_server import open_mlflow

EVERY_S = 2.0
PAUSE_AFTER_ERROR_S = 10.0

logger = logging.getLogger(__name__)


def carry_until(store_uri: str, holds_lease: threading.Event) -> None:
    """Carry what jobs have to say to MLflow for as long as the process lives.

    Args:
        store_uri: Where the lines are.
        holds_lease: Set while this orchestrator is the one that acts.
    """
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not tracking_uri:
        logger.warning("MLFLOW_TRACKING_URI is not set: metrics stay in the store")
        return
    store = open_store(store_uri)
    while True:
        holds_lease.wait()
        try:
            carrier = TrackingCarrier(store, open_mlflow(tracking_uri))
            troubles = tracking_troubles(store, carrier)
            while holds_lease.is_set():
                carry_all(store, carrier, troubles)
                time.sleep(EVERY_S)
        except TrackingError as error:
            logger.warning("metrics wait: %s", error)
        except OrchestratorError as error:
            logger.warning("tracking starts over: %s", error)
        except Exception:
            # The top of a thread: one job's odd line must not end the tracking of all.
            logger.exception("tracking starts over")
        time.sleep(PAUSE_AFTER_ERROR_S)


def tracking_troubles(store: ObjectStore, carrier: TrackingCarrier) -> Troubles:
    """Return what contains the trouble of one job with MLflow: one that answers ends no round."""

    def is_shared(error: BaseException) -> bool:
        if isinstance(error, TrackingError):
            return not carrier.answers()
        return concerns_all(store, error)

    return Troubles(store, "tracking", is_shared)


def carry_all(store: ObjectStore, carrier: TrackingCarrier, troubles: Troubles) -> None:
    """Send to MLflow what is new of each job of which not everything has gone there.

    Raises:
        TrackingError: MLflow does not answer.
        StoreError: The store does not.
    """
    live = live_attempts(store)
    with troubles.round():
        for marked in marked_jobs(store, Mark.TRACKING):
            if live.get(marked.job_id) != 0:  # else it waits for its first attempt, with no word
                troubles.serve(marked.job_id, partial(_carry, store, carrier, marked))


def _carry(store: ObjectStore, carrier: TrackingCarrier, marked: Marked) -> None:
    try:
        if carrier.carry(marked.job_id).done:
            RecordStore(store).drop_mark(marked.mark, marked.job_id)
    except ConditionFailedError:
        logger.info("job=%s is carried by another process", marked.job_id)
    except JobNotFoundError:
        drop_orphan(store, marked.mark, marked.job_id)
