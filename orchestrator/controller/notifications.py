"""Posts the end of a job to an address that the job names by the name of a variable.

The address itself is read where the orchestrator runs and is never logged or stored. A post that
fails is tried again, so an end may arrive twice; its id is the same.
"""

import ipaddress
import json
import logging
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

from orchestrator.cluster.http_client import ask
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.index import live_attempts
from orchestrator.jobs.marks import Mark, Marked, marked_jobs
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.jobs.troubles import Troubles
from orchestrator.lifecycle.state import JobRecord
from orchestrator.store.objects import ObjectStore

TIMEOUT_S = 10.0
GIVE_UP_AFTER = timedelta(days=1)
WHAT = "notification"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """What became of one post.

    Attributes:
        is_done: Whether it arrived, or never can.
        detail: One line that does not name the address.
    """

    is_done: bool
    detail: str


def notify_all(store: ObjectStore, troubles: Troubles | None = None) -> None:
    """Post the end of each job that asked for it and has ended.

    Args:
        store: Where the jobs are.
        troubles: Contains what goes wrong for one of them.

    Raises:
        StoreError: The store does not answer.
    """
    troubles = troubles or Troubles(store, WHAT)
    ended = list(marked_jobs(store, Mark.NOTIFY))
    live = live_attempts(store) if ended else {}
    with troubles.round():
        for marked in ended:
            if marked.job_id not in live:
                troubles.serve(marked.job_id, partial(_serve, store, marked))


def _serve(store: ObjectStore, marked: Marked) -> None:
    if _is_told(store, marked):
        RecordStore(store).drop_mark(marked.mark, marked.job_id)


def _is_told(store: ObjectStore, marked: Marked) -> bool:
    """Post the end of a job that has ended; return whether nothing is left to do."""
    try:
        return _notify(store, marked.job_id)
    except (JobNotFoundError, BadInputError) as error:
        if store.now() - marked.put_at <= GIVE_UP_AFTER:
            return False
        logger.warning("job=%s: nobody could be notified: %s", marked.job_id, error)
        return True


def _notify(store: ObjectStore, job_id: str) -> bool:
    records = RecordStore(store)
    record, spec = records.read(job_id).record, read_submission(records, job_id)
    if not record.state.has_ended:
        return False
    if spec.notify is None:
        return True
    delivery = post(spec.notify.url_env, message_of(record))
    logger.info("job=%s notification: %s", job_id, delivery.detail)
    return delivery.is_done or store.now() - record.changed_at > GIVE_UP_AFTER


def message_of(record: JobRecord) -> dict[str, object]:
    """Return what is posted; `id` is the same for each try."""
    return {
        "id": f"{record.job_id}.{record.attempt}.{record.state}",
        "job_id": record.job_id,
        "name": record.name,
        "kind": record.kind,
        "state": record.state,
        "reason": record.reason,
        "message": record.message,
        "ended_at": record.changed_at.isoformat(),
    }


def post(url_env: str, message: dict[str, object]) -> Delivery:
    """Post a message to the address in a variable: https, or http on loopback; no redirects."""
    try:
        url = urlsplit(os.environ.get(url_env, ""))
        _ = url.port  # read, so that a wrong one is refused here
    except ValueError:  # its text would name the address
        return Delivery(is_done=True, detail=f"the address in {url_env} is not usable")
    if not url.hostname:
        return Delivery(
            is_done=True, detail=f"{url_env} holds no address where the orchestrator runs"
        )
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.hostname)):
        return Delivery(is_done=True, detail=f"the address in {url_env} is not https")
    try:
        status = ask(
            url.geturl(),
            method="POST",
            body=json.dumps(message).encode(),
            headers={"Content-Type": "application/json"},
            timeout_s=TIMEOUT_S,
            reads_body=False,
        ).status
    except ValueError:  # a host or a path that cannot be sent
        return Delivery(is_done=True, detail=f"the address in {url_env} is not usable")
    except OSError as error:
        return Delivery(
            is_done=False, detail=f"not delivered, tried again later ({type(error).__name__})"
        )
    if 200 <= status < 300:
        return Delivery(is_done=True, detail=f"delivered, status {status}")
    return Delivery(300 <= status < 500 and status != 429, f"refused with status {status}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False
