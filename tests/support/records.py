"""Records of jobs for tests: one that was just submitted, and changes to it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.lifecycle.state import JobRecord, JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record_of(job_id: str = "a", at: datetime = NOW, **changes: Any) -> JobRecord:
    """Return the record of a queued training, called by its id.

    Args:
        job_id: Its id.
        at: When it was submitted and came into its state.
        changes: Fields that are otherwise.
    """
    record = JobRecord(
        job_id=job_id,
        kind="train",
        name=job_id,
        queue="default",
        priority=50,
        state=JobState.QUEUED,
        submitted_at=at,
        changed_at=at,
    )
    return replace(record, **changes)
