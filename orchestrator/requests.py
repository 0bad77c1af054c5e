"""What becomes of a job when a user asks to cancel or to retry it."""

from dataclasses import replace
from datetime import datetime

from orchestrator import paths
from orchestrator.records import RecordStore, Request, VersionedRecord
from orchestrator.state import JobRecord, JobState, Reason

DEFAULT_GRACE_S = 30.0
_KEPT_KEYS = 8
# A set with a damaged shard is not what SUCCEEDED says: repair alone takes a job back from there.
_AGAIN = {
    "retry": (JobState.FAILED, JobState.CANCELLED),
    "repair": (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED),
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
    moved = _cancelled(record, request, now) if request.verb == "cancel" else None
    may_go_on = request.verb in _AGAIN and record.deleted_at is None
    if may_go_on and record.state in _AGAIN[request.verb]:
        moved = _queued_again(record, request.verb, now)
        # The marks first: a queued record without them would never be seen. A job that lives
        # again takes up the group that it belongs to.
        for job_id in filter(None, (record.parent, record.job_id)):
            records.store.put(paths.queue_marker(job_id), b"{}")
            records.store.put(paths.tracking_marker(job_id), b"{}")
            records.store.put(paths.notify_marker(job_id), b"{}")
    handled = (*record.handled_requests[-_KEPT_KEYS:], request.key)
    if moved is None:
        return records.write(current, replace(record, handled_requests=handled))
    moved = replace(moved, handled_requests=handled)
    if moved.state is record.state:
        return records.write(current, moved)
    return records.move(current, moved)


def _queued_again(record: JobRecord, verb: str, now: datetime) -> JobRecord:
    reason = Reason.REPAIRED_BY_USER if verb == "repair" else Reason.RETRIED_BY_USER
    message = f"{verb}: it goes on from what it has committed"
    return replace(
        record.moved_to(JobState.QUEUED, at=now, reason=reason, message=message),
        retried_at=now,
        not_before=None,
        avoided_nodes=(),
        first_counted_attempt=record.attempt + 1,
    )


def _cancelled(record: JobRecord, request: Request, now: datetime) -> JobRecord | None:
    grace_s = float(request.details.get("grace_s", DEFAULT_GRACE_S))
    reason, message = Reason.CANCELLED_BY_USER, "cancelled by a user"
    if record.state is JobState.QUEUED:
        return record.moved_to(JobState.CANCELLED, at=now, reason=reason, message=message)
    if record.state in (JobState.STARTING, JobState.RUNNING):
        return record.moved_to(
            JobState.STOPPING,
            at=now,
            reason=reason,
            message=message,
            stop_target=JobState.CANCELLED,
            stop_grace_s=grace_s,
        )
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
