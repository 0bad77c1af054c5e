"""What becomes of a job when a user asks to cancel or to retry it."""

from dataclasses import replace
from datetime import datetime

from orchestrator.jobs.inbox import Request, Verb
from orchestrator.jobs.marks import put_all_marks
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.lifecycle.attempts import stopping
from orchestrator.lifecycle.state import JobRecord, JobState, Reason

_KEPT_KEYS = 8
# A set with a damaged shard is not what SUCCEEDED says: repair alone takes a job back from there.
_AGAIN = {
    Verb.RETRY: (JobState.FAILED, JobState.CANCELLED),
    Verb.REPAIR: (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED),
}


def handle_request(
    records: RecordStore, current: VersionedRecord, request: Request, now: datetime
) -> VersionedRecord:
    """Do what a request asks if it still means this state of the job, and note it as handled.

    A request that came too late (the job has ended, or is queued again already) changes nothing
    but is noted, so that whoever asked can see that it was read.

    Raises:
        ConditionFailedError: Somebody else moved the record.
    """
    record = current.record
    moved = _cancelled(record, request, now) if request.verb is Verb.CANCEL else None
    may_go_on = request.verb in _AGAIN and record.deleted_at is None
    if may_go_on and record.state in _AGAIN[request.verb]:
        moved = _queued_again(record, request.verb, now)
        _put_marks(records, record)  # first: a queued record without them would never be seen
    handled = (*record.handled_requests[-_KEPT_KEYS:], request.key)
    if moved is None:
        return records.write(current, replace(record, handled_requests=handled))
    moved = replace(moved, handled_requests=handled)
    if moved.state is record.state:
        return records.write(current, moved)
    current = records.move(current, moved)
    if moved.state is JobState.QUEUED:
        # Again: whoever had just sent everything of the ended job may have dropped its marks.
        _put_marks(records, record)
    return current


def _put_marks(records: RecordStore, record: JobRecord) -> None:
    """Put the marks of a job that lives again, and of the group that it takes up with it."""
    group = "" if records.stored_spec(record.job_id).origin.at_step else record.parent
    for job_id in filter(None, (group, record.job_id)):
        put_all_marks(records.store, job_id)


def _queued_again(record: JobRecord, verb: Verb, now: datetime) -> JobRecord:
    reason = Reason.REPAIRED_BY_USER if verb is Verb.REPAIR else Reason.RETRIED_BY_USER
    message = f"{verb}: it goes on from what it has committed"
    return replace(
        record.moved_to(JobState.QUEUED, at=now, reason=reason, message=message),
        retried_at=now,
        not_before=None,
        avoided_nodes=(),
        first_counted_attempt=record.attempt + 1,
    )


def _cancelled(record: JobRecord, request: Request, now: datetime) -> JobRecord | None:
    grace_s = request.grace_s
    reason, message = Reason.CANCELLED_BY_USER, "cancelled by a user"
    if record.state is JobState.QUEUED:
        return record.moved_to(JobState.CANCELLED, at=now, reason=reason, message=message)
    if record.state in (JobState.STARTING, JobState.RUNNING):
        return stopping(record, now, reason, message, JobState.CANCELLED, grace_s)
    if record.state is JobState.STOPPING:
        # It is on its way out already: only what comes after that changes.
        return replace(
            record,
            reason=reason,
            message=message,
            stop_target=JobState.CANCELLED,
            stop_grace_s=min(record.stop_grace_s, grace_s) if record.stop_grace_s else 0.0,
        )
    return None
