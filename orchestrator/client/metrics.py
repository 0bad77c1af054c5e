"""What a job measured, by name and step, as its attempts wrote it into the store."""

from collections import defaultdict
from collections.abc import Collection, Iterator

from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobRecord
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking.lines import MetricsLine, decode_lines, segments


def read_metrics(
    store: ObjectStore, job_id: str, names: Collection[str] | None = None
) -> dict[str, dict[int, float]]:
    """Return the values of each metric by step; a step that was done again has its last value.

    Args:
        store: Where the job is.
        job_id: Its id.
        names: Which metrics; None for all.

    Returns:
        By name, in the order in which they first came, the values by ascending step: a training's
        step, of a fleet the seconds since its job was submitted.

    Raises:
        JobNotFoundError: There is no such job.
    """
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for _, line in _lines(store, RecordStore(store).read(job_id).record):
        for name, value in line.values.items():
            if names is None or name in names:
                found[name][line.step] = value
    return {name: dict(sorted(points.items())) for name, points in found.items()}


def training_seconds(store: ObjectStore, job_id: str) -> dict[int, float]:
    """Return how long a training's attempts had taken when it told of a step, by ascending step.

    What a lost attempt did in vain counts: it was waited and paid for. A step that was done again
    has its last time.

    Raises:
        JobNotFoundError: There is no such job.
    """
    record = RecordStore(store).read(job_id).record
    found: dict[int, float] = {}
    for attempt, line in _lines(store, record):
        if "loss" not in line.values or attempt > len(record.attempts):
            continue
        before = sum(
            (one.ended_at - one.started_at).total_seconds()
            for one in record.attempts[: attempt - 1]
            if one.ended_at is not None
        )
        own_s = line.at_ms / 1000.0 - record.attempts[attempt - 1].started_at.timestamp()
        found[line.step] = before + max(own_s, 0.0)
    return dict(sorted(found.items()))


def _lines(store: ObjectStore, record: JobRecord) -> Iterator[tuple[int, MetricsLine]]:
    """Yield the lines of metrics of a job's attempts, in order, each with its attempt."""
    for attempt in range(1, record.attempt + 1):
        for _, body in segments(store, JobPaths(record.job_id).attempt(attempt)).bodies():
            for line in decode_lines(body)[0]:
                if isinstance(line, MetricsLine):
                    yield attempt, line
