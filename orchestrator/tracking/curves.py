"""What goes to a training's run in MLflow of its checkpoints: the curve, and which is the best.

Told when an evaluation has ended, and once more of all points when the training itself has: its
run may not have been there before. A point goes out with the time stamp that it was put with, so
that one that is sent again changes nothing.
"""

import logging
from collections.abc import Sequence

from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.curve import CurvePoint, best_point, read_curve
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.tracked_run import tracked_run
from orchestrator.lifecycle.curves import evaluated_steps
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.specs.stored_parts import CURVE_PARTS, CurveParts
from orchestrator.store.names import part_id
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking import tags
from orchestrator.tracking.lines import ModelLine
from orchestrator.tracking.server import (
    LineRefusedError,
    MetricValue,
    RunMissingError,
    TrackingServer,
)

PREFIX = "checkpoints/"
ALIAS = "best"

logger = logging.getLogger(__name__)


def tell_curve(store: ObjectStore, server: TrackingServer, record: JobRecord) -> None:
    """Tell what an ended job adds to a training's curve; nothing for most jobs.

    Args:
        store: Where the jobs are.
        server: MLflow.
        record: An evaluation of a checkpoint, what was drawn for it, or the training itself.
    """
    records = RecordStore(store)
    try:
        own = records.stored_spec(record.job_id)
        training = own.origin.trained_by or record.job_id
        asked = CURVE_PARTS.of(records.stored_spec(training).spec, training)
        if not asked.every_steps:
            return
        points = read_curve(store, training)
        _tell(store, server, training, points, record.job_id)
        if _is_settled(records, training, asked, points, record.job_id):
            _register_best(store, server, training, asked, points)
    except JobNotFoundError:
        return  # deleted meanwhile
    except (LineRefusedError, RunMissingError) as error:
        logger.warning("job=%s: MLflow goes without its curve: %s", record.job_id, error)


def _tell(
    store: ObjectStore,
    server: TrackingServer,
    training: str,
    points: Sequence[CurvePoint],
    job_id: str,
) -> None:
    run_id = _run_of(store, server, training)
    if not run_id:
        return
    values = [
        MetricValue(f"{PREFIX}{name}", value, point.at_ms, point.step)
        for point in points
        if job_id in (point.job_id, training)
        for name, value in point.values.items()
    ]
    if values:
        server.log_metrics(run_id, values)


def _run_of(store: ObjectStore, server: TrackingServer, training: str) -> str:
    """Return the training's run; "" where it was deleted, or is still to be made."""
    run_id = tracked_run(store, training).run_id
    return run_id if run_id and server.is_active(run_id) else ""


def _is_settled(
    records: RecordStore,
    training: str,
    asked: CurveParts,
    points: Sequence[CurvePoint],
    job_id: str,
) -> bool:
    """Tell whether no evaluation of a training is still to come: its best stays the best."""
    record = records.read(training).record
    if not record.state.has_ended:
        return False
    num_steps, known = asked.training.num_steps, {point.step for point in points}
    for step in evaluated_steps(asked.every_steps, num_steps):
        if step in known:
            continue
        try:
            evaluation = records.read(part_id(training, record.name, f"at-{step}")).record
        except JobNotFoundError:
            if record.state is JobState.SUCCEEDED and step == num_steps:
                return False  # it is made before anybody forgets the training
            continue
        if evaluation.job_id != job_id and not evaluation.state.has_ended:
            return False
    return True


def _register_best(
    store: ObjectStore,
    server: TrackingServer,
    training: str,
    asked: CurveParts,
    points: Sequence[CurvePoint],
) -> None:
    measure = asked.checkpoints.keep_best
    if not measure:
        return
    kept = (point for point in points if point.source)  # else it was gone when it was compared
    best, run_id = best_point(kept, measure), _run_of(store, server, training)
    if best is None or not run_id:
        return
    line = ModelLine(
        name=asked.tracking.registered_model or asked.name,
        source=best.source,
        step=best.step,
        sha256=best.sha256,
        tags={tags.COMMIT: best.commit, f"ddpmctl.{measure}": f"{best.value_of(measure):.6g}"},
    )
    server.register_model(run_id, training, line)
    server.set_alias(training, line, ALIAS)
