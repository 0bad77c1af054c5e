"""What a job may refer to that this version cannot read: nothing that its text does not name."""

import json
import logging
from collections.abc import Iterable
from contextlib import suppress

from orchestrator.errors import (
    BadInputError,
    JobNotFoundError,
    ObjectNotFoundError,
    OrchestratorError,
    StoredFormError,
)
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.jobs.troubles import concerns_all
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

SILENT_FOR_S = 120.0
"""A driver that is at work shows how far it is every few seconds."""
NOTE = "(which cannot be read, but names it)"


def may_name(store: ObjectStore, job_id: str, names: Iterable[str]) -> bool:
    """Tell whether the spec or the record of a job holds one of some names, or an address with it.

    Args:
        store: Where the job is.
        job_id: A job that is damaged, or that a newer version wrote.
        names: Ids, names and hashes, none of which JSON writes in another way.
    """
    text = b"".join(_body(store, key) for key in (JobPaths(job_id).spec, JobPaths(job_id).record))
    return any(form.encode() in text for name in names for form in (f'"{name}"', f"/{name}/"))


def unlisted(store: ObjectStore, listed: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return what jobs are called that no list has, since they cannot be read, and hold a name.

    Args:
        store: Where the jobs are.
        listed: The ids that are known.
        names: As for `may_name`.
    """
    known, wanted = set(listed), list(names)
    others = [job_id for job_id in store.list_folders(keys.JOBS) if job_id not in known]
    return [f"the job {job_id} {NOTE}" for job_id in others if _hides(store, job_id, wanted)]


def record_to_delete(store: ObjectStore, job_id: str, *, force: bool = False) -> VersionedRecord:
    """Return a job's record; an ended one in the place of one that cannot be read, if it may go.

    It may where the spec is torn and there is no record, so that nobody can have begun the job,
    and where a user insists and nothing of the job has been written of late.

    Args:
        store: Where the job is.
        job_id: The job.
        force: Whether the user insists.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: Its record is damaged, or a newer version wrote it; it may be at work.
    """
    try:
        return RecordStore(store).read(job_id)
    except StoredFormError as error:
        job = JobPaths(job_id)
        if force:
            _check_silent(store, job_id)
        elif store.exists(job.record) or _is_json(_body(store, job.spec)):
            raise StoredFormError(
                f"{error}; once nothing of it runs any more, "
                f"`ddpmctl delete --force {job_id}` removes it all the same"
            ) from error
    return VersionedRecord(_ended(store, job_id), _etag(store, job.record))


def _check_silent(store: ObjectStore, job_id: str) -> None:
    written = [info.modified_at for info in store.list_objects(JobPaths(job_id).folder)]
    silent_s = (store.now() - max(written)).total_seconds()
    if silent_s < SILENT_FOR_S:
        raise BadInputError(
            f"something of job {job_id} was written {silent_s:.0f} s ago, so it may be at work; "
            f"it can be deleted once it has been silent for {SILENT_FOR_S:.0f} s"
        )


def _ended(store: ObjectStore, job_id: str) -> JobRecord:
    """Return what is taken for the record of a job of which at most the kind is known."""
    now = store.now()
    return JobRecord(
        job_id=job_id,
        kind=_kind(_body(store, JobPaths(job_id).spec)),
        name=job_id,
        queue="",
        priority=0,
        state=JobState.CANCELLED,
        submitted_at=now,
        changed_at=now,
    )


def _kind(spec: bytes) -> str:
    with suppress(ValueError):
        value = json.loads(spec)
        return str(value.get("kind", "")) if isinstance(value, dict) else ""
    return ""


def _etag(store: ObjectStore, key: str) -> str:
    try:
        return store.get(key).etag
    except ObjectNotFoundError:
        return ""


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _hides(store: ObjectStore, job_id: str, names: list[str]) -> bool:
    """Tell whether a job cannot be read and holds a name; one whose objects fail stops no other."""
    try:
        return _is_unreadable(store, job_id) and may_name(store, job_id, names)
    except OrchestratorError as error:
        if concerns_all(store, error):
            raise
        logger.warning("job=%s is passed over: %s", job_id, error)
        return False


def _is_unreadable(store: ObjectStore, job_id: str) -> bool:
    try:
        RecordStore(store).read(job_id)
    except JobNotFoundError:
        return False
    except BadInputError:
        return True
    return False  # it is being deleted


def _body(store: ObjectStore, key: str) -> bytes:
    try:
        return store.get(key).body
    except ObjectNotFoundError:
        return b""
