"""What a job measured, by name and step, as its attempts wrote it into the store."""

from collections import defaultdict
from collections.abc import Collection

from orchestrator.jobs.records import RecordStore
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
    record = RecordStore(store).read(job_id).record
    for attempt in range(1, record.attempt + 1):
        for _, body in segments(store, JobPaths(job_id).attempt(attempt)).bodies():
            for line in decode_lines(body)[0]:
                if not isinstance(line, MetricsLine):
                    continue
                for name, value in line.values.items():
                    if names is None or name in names:
                        found[name][line.step] = value
    return {name: dict(sorted(points.items())) for name, points in found.items()}
