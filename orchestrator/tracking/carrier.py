"""Carries what jobs wrote into the store to MLflow: once, in order, whatever crashes in between.

Lines go out with the time stamps they were written with, and MLflow keeps one of several equal
values; so what a crash between sending and noting makes us send again changes nothing. The cursor
is moved with If-Match, so two carriers cannot both move it.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.errors import (
    ConditionFailedError,
    JobNotFoundError,
    TrackingError,
)
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.specs.envelope import STORED_SPEC, StoredSpec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking import tags
from orchestrator.tracking.cursor import TRACKING_CURSOR, TrackingCursor
from orchestrator.tracking.curves import tell_curve
from orchestrator.tracking.description import description
from orchestrator.tracking.groups import group_tags, own_settings
from orchestrator.tracking.lines import (
    MetricsLine,
    ParamsLine,
    TrackingLine,
    decode_lines,
    params_of,
    segments,
)
from orchestrator.tracking.results import result_metrics, result_tags
from orchestrator.tracking.sender import TrackedRunSender
from orchestrator.tracking.server import METRICS_PER_CALL, RunMissingError, TrackingServer

logger = logging.getLogger(__name__)

_STATUS = {
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}


@dataclass(frozen=True)
class CarryResult:
    """How far a job was carried.

    Attributes:
        done: MLflow knows everything there will ever be, unless the job is retried.
        run_id: The job's run; None while there is nothing to log.
        experiment_id: The run's experiment; None likewise.
    """

    done: bool
    run_id: str | None = None
    experiment_id: str | None = None


class TrackingCarrier:
    """Tells MLflow about jobs; keeps nothing that the store does not hold.

    Args:
        store: Where the lines and the cursors are.
        server: MLflow.
    """

    def __init__(self, store: ObjectStore, server: TrackingServer) -> None:
        self._store = store
        self._server = server

    def answers(self) -> bool:
        """Tell whether MLflow answers at all, asked about no job."""
        try:
            self._server.find_run("0", "")
        except TrackingError:
            return False
        return True

    def carry(self, job_id: str, budget_s: float = 10.0) -> CarryResult:
        """Tell MLflow what is new about a job.

        Args:
            job_id: The job.
            budget_s: When to stop and leave the rest for the next call.

        Raises:
            TrackingError: MLflow failed; calling again later goes on from there.
            ConditionFailedError: Another carrier is at this job.
            StoreError: The store failed.
            StoredFormError: The cursor is damaged, or of a newer version.
        """
        # Before the lines are listed: if it says that the job has ended, no line follows.
        record = RecordStore(self._store).read(job_id).record
        if record.attempt == 0:
            if record.state.has_ended:
                tell_curve(self._store, self._server, record)
            return CarryResult(done=record.state.has_ended)
        carry = _Carry(self._store, self._server, record)
        try:
            return carry.run(time.monotonic() + budget_s)
        except RunMissingError as error:
            # MLflow lost the run; the store has all of it, so the next call logs it again.
            logger.warning("job=%s begins a new run: %s", job_id, error)
            carry.forget_run()
            return CarryResult(done=False)


class _Carry:
    """One call's work for one job."""

    def __init__(self, store: ObjectStore, server: TrackingServer, record: JobRecord) -> None:
        self._store = store
        self._server = server
        self._record = record
        self._paths = JobPaths(record.job_id)
        self._cursor, self._etag = self._load()
        self._is_checked = False

    def run(self, end: float) -> CarryResult:
        if not self._cursor.is_described and group_tags(self._store, self._record) is None:
            return self._result(done=False)  # the group's run comes first
        self._ensure_run()
        if not self._described():
            return self._result(done=self._record.state.has_ended)
        for number, lines in self._segments():
            if not self._run_is_active():
                return self._result(done=self._record.state.has_ended)
            self._send(number, lines)
            if time.monotonic() > end:
                return self._result(done=False)
        return self._result(done=self._set_status())

    def forget_run(self) -> None:
        self._save(TrackingCursor())

    def _result(self, *, done: bool) -> CarryResult:
        return CarryResult(done, self._cursor.run_id, self._cursor.experiment_id)

    def _load(self) -> tuple[TrackingCursor, str]:
        standing = TRACKING_CURSOR.read(self._store, self._paths.tracking_cursor)
        return (standing[0], standing[1].etag) if standing else (TrackingCursor(), "")

    def _save(self, cursor: TrackingCursor) -> None:
        key, body = self._paths.tracking_cursor, TRACKING_CURSOR.encode(cursor)
        if self._etag:
            self._etag = self._store.put(key, body, if_match=self._etag)
        else:
            self._etag = self._store.put(key, body, if_absent=True)
            self._take_back_if_deleted(key)
        self._cursor = cursor

    def _take_back_if_deleted(self, key: str) -> None:
        """Leave nothing of a job that somebody deletes, who may have listed its objects before."""
        job_id, records = self._record.job_id, RecordStore(self._store)
        if records.is_deleted(job_id):
            self._store.delete(key)
            raise JobNotFoundError(job_id)

    def _stored_spec(self) -> StoredSpec:
        return STORED_SPEC.value(self._store, self._paths.spec) or StoredSpec(spec={})

    def _ensure_run(self) -> None:
        if self._cursor.run_id:
            return
        tracking = self._stored_spec().spec.get("tracking")
        name = tracking.get("experiment") if isinstance(tracking, dict) else None
        experiment_id = self._server.experiment(str(name or "ddpmctl"))
        # A run without a cursor is what a crash between the two leaves behind.
        known = self._server.find_run(experiment_id, self._record.job_id)
        start_ms = _ms(self._record.submitted_at)
        run_id = known or self._server.create_run(experiment_id, self._record.job_id, start_ms)
        try:
            self._save(replace(self._cursor, experiment_id=experiment_id, run_id=run_id))
        except ConditionFailedError:
            if known is None:
                self._server.delete_run(run_id)
            raise

    @property
    def _run(self) -> TrackedRunSender:
        return TrackedRunSender(self._store, self._server, self._record.job_id, self._cursor.run_id)

    def _run_is_active(self) -> bool:
        self._is_checked = self._is_checked or self._server.is_active(self._cursor.run_id)
        if not self._is_checked:
            logger.info("job=%s: its run was deleted in MLflow", self._record.job_id)
        return self._is_checked

    def _described(self) -> bool:
        """Send the spec's params and the job's tags, once; false if nobody wants them."""
        if self._cursor.is_described:
            return True
        if not self._run_is_active():
            return False
        stored = self._stored_spec()
        params = params_of(own_settings(stored))
        self._run.send_params(params)
        self._run.send_tags(
            {
                tags.KIND: self._record.kind,
                tags.NAME: self._record.name,
                tags.ATTEMPT: str(self._cursor.attempt),
                "mlflow.source.name": "ddpmctl",
                "mlflow.note.content": description(stored.spec, self._record),
                **({"mlflow.user": self._record.owner} if self._record.owner else {}),
                **(group_tags(self._store, self._record) or {}),
            }
        )
        known = self._cursor.params | set(params)
        self._save(replace(self._cursor, is_described=True, params=known))
        return True

    def _segments(self) -> Iterator[tuple[int, list[TrackingLine]]]:
        """Yield what is new, some segments at a time, up to the end of the newest attempt."""
        while True:
            number, lines = self._cursor.number, list[TrackingLine]()
            folder = segments(self._store, self._paths.attempt(self._cursor.attempt))
            for number, body in folder.bodies(self._cursor.number):
                readable, num_unreadable = decode_lines(body)
                if num_unreadable:
                    logger.warning("%d unreadable lines in %s", num_unreadable, folder.key(number))
                lines += readable
                if _num_values(lines) >= METRICS_PER_CALL:
                    break
            if number > self._cursor.number:
                yield number, lines
            elif self._cursor.attempt < self._record.attempt:
                # A later attempt begins only when the processes of this one are proven gone.
                self._begin_next_attempt()
            else:
                return

    def _begin_next_attempt(self) -> None:
        following = self._cursor.at_next_attempt()
        if self._run_is_active():
            self._run.send_tags({tags.ATTEMPT: str(following.attempt)})
        self._save(following)

    def _send(self, number: int, lines: list[TrackingLine]) -> None:
        run = self._run
        values = self._cursor.new_values(line for line in lines if isinstance(line, MetricsLine))
        run.send_metrics(values)
        params: dict[str, str] = {}
        for line in lines:
            if isinstance(line, ParamsLine):
                params = {**line.values, **params}  # the first value of a name stands
            else:
                run.send_line(line)
        new = {name: text for name, text in params.items() if name not in self._cursor.params}
        run.send_params(new)
        cursor = self._cursor.with_sent(number, values)
        self._save(replace(cursor, params=cursor.params | set(new)))

    def _set_status(self) -> bool:
        """Bring the run's status to the job's state; return whether the job has ended."""
        state = self._record.state
        status = _STATUS.get(state, "RUNNING")
        if status == self._cursor.status:
            return state.has_ended
        if self._run_is_active():
            end_ms = _ms(self._record.changed_at) if state.has_ended else None
            self._run.send_tags(
                {
                    tags.STATE: state,
                    tags.REASON: self._record.reason or "none",
                    **result_tags(self._store, self._record, self._stored_spec().spec),
                }
            )
            self._run.send_metrics(result_metrics(self._store, self._record))
            self._server.set_status(self._cursor.run_id, status, end_ms)
        if state.has_ended:
            tell_curve(self._store, self._server, self._record)
        self._save(replace(self._cursor, status=status))
        return state.has_ended


def _num_values(lines: Sequence[TrackingLine]) -> int:
    return sum(len(line.values) for line in lines if isinstance(line, MetricsLine))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
