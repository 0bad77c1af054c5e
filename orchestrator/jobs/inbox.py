"""What users ask the orchestrator to do with jobs, on its way there."""

import logging
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from orchestrator.errors import StoredFormError, StoreError
from orchestrator.jobs.troubles import concerns_all
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore

DEFAULT_GRACE_S = 30.0

logger = logging.getLogger(__name__)


class Verb(StrEnum):
    """What can be asked."""

    CANCEL = "cancel"
    RETRY = "retry"
    REPAIR = "repair"
    DELETE = keys.DELETE


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks the orchestrator to do with a job.

    Attributes:
        job_id: The job.
        verb: What to do.
        attempt: The attempt that the user saw: a later one is not meant.
        at: When it was asked.
        grace_s: Of a cancel: the time that the job has to save its work.
        key: Where it lies in the inbox.
    """

    job_id: str
    verb: Verb
    attempt: int
    at: datetime
    grace_s: float = DEFAULT_GRACE_S
    key: str = ""


def _from_before_versions(value: dict[str, object]) -> dict[str, object]:
    """Once, what a verb's options were stood in a mapping that nobody checked."""
    details = value.get("details")
    given = details.get("grace_s") if isinstance(details, dict) else None
    is_usable = isinstance(given, int | float) and math.isfinite(given) and given >= 0
    return {**value, "grace_s": given if is_usable else DEFAULT_GRACE_S}


REQUEST = Codec(Request, "request", upgrade=_from_before_versions)


def post_request(store: ObjectStore, request: Request) -> str:
    """Put a request into the inbox and return its key."""
    stamp = request.at.strftime("%Y%m%d%H%M%S%f") + "-" + secrets.token_hex(3)
    key = keys.inbox_request(stamp, request.job_id, request.attempt, request.verb)
    store.put(key, REQUEST.encode(replace(request, key=key)))
    return key


def request_keys(store: ObjectStore) -> list[str]:
    """Return the keys of the requests that wait."""
    return [info.key for info in store.list_objects(keys.INBOX)]


def read_requests(store: ObjectStore) -> Iterator[Request]:
    """Yield the requests that wait, oldest first; one that cannot be read is dropped."""
    for info in store.list_objects(keys.INBOX):
        try:
            request = REQUEST.value(store, info.key)
        except StoredFormError as error:
            logger.error("%s; it is dropped", error)
            store.delete(info.key)
            continue
        except StoreError as error:
            if concerns_all(store, error):
                raise
            logger.error("%s cannot be read: %s", info.key, error)
            continue
        if request is not None:
            yield request
