"""GPU-hours that a queue's jobs may use in a calendar month, and what they have used. Pure.

Months are those of UTC. An attempt that runs over midnight of the first counts for both months.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.lifecycle.attempts import stopping
from orchestrator.lifecycle.state import AttemptRecord, JobRecord, JobState, Reason

GRACE_S = 60.0
LATE = timedelta(minutes=10)
"""How long an end may stay unseen: a write whose answer was lost, a clock that was set back."""
Months = Mapping[str, Mapping[str, float]]


def month_of(at: datetime) -> str:
    """Return the month of a time: "2026-11"."""
    return f"{at.astimezone(UTC):%Y-%m}"


def next_month(at: datetime) -> datetime:
    """Return the first moment of the month that follows."""
    at = at.astimezone(UTC)
    return datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)


def hours_by_month(attempt: AttemptRecord, now: datetime) -> Iterator[tuple[str, float]]:
    """Yield (month, GPU-hours) of an attempt, the first month first.

    Args:
        attempt: The attempt; one that has not ended counts up to now.
        now: By the store's clock.
    """
    begin, end = attempt.started_at, attempt.ended_at or now
    while begin < end:
        until = min(end, next_month(begin))
        yield month_of(begin), attempt.gpus * (until - begin).total_seconds() / 3600
        begin = until


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What attempts that have ended used.

    Attributes:
        months: Month to queue to GPU-hours.
        counted_until: The last end that is in it; None before the first.
        recent: The attempts in it that ended within `LATE` of that, "<job>.<number>", and when.
    """

    months: Months = field(default_factory=dict)
    counted_until: datetime | None = None
    recent: Mapping[str, datetime] = field(default_factory=dict)

    def with_ended(self, records: Iterable[JobRecord], now: datetime) -> "Usage":
        """Return the usage with what has ended since; the same object if nothing has.

        An attempt is known by the time of its end, so that one of a job that is queued again
        months later counts once; near the last end by its name, so that ends may be seen out of
        their order.

        Args:
            records: All jobs of which an attempt may have ended since.
            now: By the store's clock.
        """
        ended = {
            f"{record.job_id}.{attempt.number}": (record.queue, attempt, attempt.ended_at)
            for record in records
            for attempt in record.attempts
            if attempt.ended_at is not None and attempt.gpus
        }
        new = {name: one for name, one in ended.items() if self._is_new(name, one[2])}
        if not new:
            return self
        months = {month: dict(queues) for month, queues in self.months.items()}
        for queue, attempt, _ in new.values():
            _add(months, queue, attempt, now)
        kept = sorted(months)[-_KEPT_MONTHS:]
        ends = {**self.recent, **{name: ended_at for name, (*_, ended_at) in new.items()}}
        last = max(ends.values())
        return Usage(
            months={month: months[month] for month in kept},
            counted_until=last,
            recent={name: ended_at for name, ended_at in ends.items() if ended_at > last - LATE},
        )

    def _is_new(self, name: str, ended_at: datetime) -> bool:
        if self.counted_until is None or ended_at > self.counted_until:
            return True
        is_late = ended_at > self.counted_until - LATE
        # An account of before there were names distinguishes nobody.
        return is_late and bool(self.recent) and self.recent.get(name) != ended_at

    def used(self, records: Iterable[JobRecord], now: datetime) -> dict[str, float]:
        """Return what each queue has used in this month, attempts that run included."""
        months: dict[str, dict[str, float]] = {month_of(now): {}}
        months[month_of(now)].update(self.months.get(month_of(now), {}))
        for record in records:
            for attempt in record.attempts[-1:]:
                if attempt.ended_at is None:
                    _add(months, record.queue, attempt, now)
        return months[month_of(now)]


_KEPT_MONTHS = 13


def _add(
    months: dict[str, dict[str, float]], queue: str, attempt: AttemptRecord, now: datetime
) -> None:
    for month, hours in hours_by_month(attempt, now):
        queues = months.setdefault(month, {})
        queues[queue] = queues.get(queue, 0.0) + hours


def spent_queues(
    limits: Mapping[str, float], used: Mapping[str, float], now: datetime
) -> dict[str, str]:
    """Return the queues that have used up their month, with the reason that their jobs show.

    Args:
        limits: Queue to GPU-hours a month; a queue without an entry has no limit.
        used: What each has used in this month.
        now: By the store's clock.
    """
    begins = next_month(now)
    return {
        queue: f"the month that begins {begins:%Y-%m-%d} (UTC): queue {queue} has used its "
        f"{limit:g} GPU-hours of {month_of(now)}"
        for queue, limit in limits.items()
        if used.get(queue, 0.0) >= limit
    }


def must_pause(record: JobRecord, spent: Mapping[str, str]) -> bool:
    """Tell whether a job that works must save and wait: it holds GPUs for a queue without hours."""
    works = record.state in (JobState.STARTING, JobState.RUNNING)
    return works and record.queue in spent and record.attempts[-1].gpus > 0


def paused(record: JobRecord, *, at: datetime, why: str) -> JobRecord:
    """Return the record of a job that saves its work and waits for the next month.

    Args:
        record: The record.
        at: By the store's clock.
        why: What `spent_queues` says of its queue.
    """
    message = f"it saves its work and waits for {why}"
    return stopping(record, at, Reason.QUEUE_HOURS_SPENT, message, JobState.QUEUED, GRACE_S)
