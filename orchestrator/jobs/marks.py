"""Marks of jobs: each says that something is still to be done for a job, until it is done.

They are put before the spec, so one without a spec is left over from a `submit` that died, and is
dropped once it is too old to be one of a job that is just being submitted. A job that lives again
gets all of them back; whoever drops a mark at that moment looks at the job once more.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.errors import ObjectNotFoundError
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore

ORPHAN_AFTER = timedelta(minutes=10)
_BODY = b"{}"


class Mark(StrEnum):
    """What is to be done; the value is the folder of such marks."""

    QUEUE = keys.QUEUE  # the orchestrator has to bring the job to its end
    TRACKING = keys.TRACKING  # not all of it has gone to MLflow
    NOTIFY = keys.NOTIFY  # nobody has been notified of its end

    def key(self, job_id: str) -> str:
        """Return where a job's mark lies."""
        return f"{self.value}{job_id}"


@dataclass(frozen=True)
class Marked:
    """A job with a mark, and when that was put.

    Attributes:
        job_id: The job.
        mark: What is to be done for it.
        put_at: By the store's clock.
    """

    job_id: str
    mark: Mark
    put_at: datetime


def marked_jobs(store: ObjectStore, mark: Mark) -> Iterator[Marked]:
    """Yield the jobs for which something is to be done."""
    for info in store.list_objects(mark.value):
        yield Marked(info.key.removeprefix(mark.value), mark, info.modified_at)


def put_first_marks(
    store: ObjectStore, job_id: str, *, is_tracked: bool, is_notified: bool
) -> None:
    """Mark a job that is about to be submitted."""
    if is_tracked:
        store.put(Mark.TRACKING.key(job_id), _BODY)
    store.put(Mark.QUEUE.key(job_id), _BODY)
    if is_notified:
        store.put(Mark.NOTIFY.key(job_id), _BODY)


def put_all_marks(store: ObjectStore, job_id: str) -> None:
    """Mark a job that lives again."""
    for mark in Mark:
        store.put(mark.key(job_id), _BODY)


def drop_all_marks(store: ObjectStore, job_id: str) -> None:
    """Forget that anything is to be done for a job that is deleted."""
    for mark in Mark:
        store.delete(mark.key(job_id))


def drop_mark(
    store: ObjectStore, mark: Mark, job_id: str, lives: Callable[[], bool] = lambda: False
) -> None:
    """Say that what a mark stands for is done.

    Args:
        store: Where the marks are.
        mark: What is done.
        job_id: For which job.
        lives: Whether the job was queued again meanwhile; its mark comes back then.
    """
    store.delete(mark.key(job_id))
    if lives():
        store.put(mark.key(job_id), _BODY)


def drop_orphan(store: ObjectStore, mark: Mark, job_id: str) -> None:
    """Forget a mark whose spec never came."""
    key = mark.key(job_id)
    with suppress(ObjectNotFoundError):  # the job was deleted meanwhile
        if store.get(key).age > ORPHAN_AFTER:
            store.delete(key)
