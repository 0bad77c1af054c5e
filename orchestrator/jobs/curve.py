"""What the checkpoints of a training are worth: one small object each, put once.

An evaluation puts it before it ends. From then on nobody evaluates that checkpoint again, whatever
becomes of the jobs that did.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.errors import ConditionFailedError, JobNotFoundError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.curves import best_step
from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

BEST = "_best"  # in the place of the job that a checkpoint is kept for; no job is called so
_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What one checkpoint is worth.

    Attributes:
        step: Training steps that it holds.
        at_ms: When that was found, in ms since the epoch.
        job_id: The evaluation that found it.
        values: Metrics by name, such as "kid-pixels", with "kid-pixels_se" and "kid-pixels_floor".
        source: URI of the folder of the checkpoint's files.
        commit: URI of its commit.
        sha256: Hash of its files.
    """

    step: int
    at_ms: int
    job_id: str
    values: Mapping[str, float]
    source: str = ""
    commit: str = ""
    sha256: str = ""

    def name_of(self, measure: str) -> str:
        """Return the name of a metric, whatever its extractor: "kid-pixels"; "" without."""
        return next((name for name in self.values if _measure_of(name) == measure), "")

    def value_of(self, measure: str) -> float | None:
        """Return the value of a metric, whatever its extractor; None without."""
        return self.values.get(self.name_of(measure))

    def error_of(self, measure: str) -> float:
        """Return the standard error of a metric; 0 where none is known."""
        return self.values.get(f"{self.name_of(measure)}_se", 0.0)

    def floor_of(self, measure: str) -> float | None:
        """Return what real images get in a metric against real ones; None where none is known."""
        return self.values.get(f"{self.name_of(measure)}_floor")


CURVE_POINT = Codec(CurvePoint, "point of the curve")


def _measure_of(name: str) -> str:
    """Return "kid" of "kid-pixels", and nothing of what stands beside it: "kid-pixels_se"."""
    return "" if name.endswith(("_se", "_floor")) else name.partition("-")[0]


def put_point(store: ObjectStore, training: str, point: CurvePoint) -> CurvePoint:
    """Put what a checkpoint is worth; return what stands, which may be an earlier attempt's word.

    Args:
        store: Where the training is.
        training: Its id.
        point: What was found.
    """
    key = JobPaths(training).curve_point(point.step)
    try:
        store.put(key, CURVE_POINT.encode(point), if_absent=True)
    except ConditionFailedError:
        return CURVE_POINT.value(store, key) or point
    return point


def curve_steps(store: ObjectStore, training: str) -> list[int]:
    """Return the steps of which it is known what their checkpoints are worth, ascending."""
    infos = store.list_objects(JobPaths(training).curve)
    return sorted(int(info.key[-len("000000000.json") : -len(".json")]) for info in infos)


def read_curve(store: ObjectStore, training: str) -> list[CurvePoint]:
    """Return what a training's checkpoints are worth, by step. Raises: StoredFormError."""
    keys = [JobPaths(training).curve_point(step) for step in curve_steps(store, training)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda key: CURVE_POINT.value(store, key), keys))
    return [point for point in found if point is not None]


def is_settled(
    store: ObjectStore, training: str, step: int, *, sample_id: str, evaluate_id: str
) -> bool:
    """Tell whether nobody will draw from the checkpoint of a step, to evaluate it, any more.

    Args:
        store: Where the training is.
        training: Its id.
        step: Of the checkpoint.
        sample_id: The job that draws from it, which may be gone; it goes on where the other one
            alone was cancelled.
        evaluate_id: The job that compares what was drawn, which may be gone, or still to be made.
    """
    if store.exists(JobPaths(training).curve_point(step)):
        return True
    records = RecordStore(store)
    try:
        was_compared = records.read(evaluate_id).record.state.has_ended
    except JobNotFoundError:
        return False
    return was_compared and not records.is_at_work(sample_id)


def best_point(points: Iterable[CurvePoint], measure: str) -> CurvePoint | None:
    """Return the best of some points by a metric; None where none has it."""
    by_step = {point.step: point for point in points}
    values = {
        step: value for step, p in by_step.items() if (value := p.value_of(measure)) is not None
    }
    best = best_step(values, measure)
    return None if best is None else by_step[best]
