"""What both drivers share: one attempt's identity, heartbeat, stop request and outcome.

A driver's process calls `run_attempt`, which makes sure that the attempt is the current one,
ships its log, beats while the work runs, and puts the outcome in the store exactly once.
"""

import logging
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime

import psutil

from orchestrator.attempts.address import AttemptAddress
from orchestrator.attempts.log_shipper import LogShipper
from orchestrator.attempts.stop import StopRequest, StopSignal
from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.errors import (
    AttemptSupersededError,
    ConditionFailedError,
    JobNotFoundError,
    OrchestratorError,
    StoreError,
)
from orchestrator.jobs.decisions import Decisions, decode_decisions
from orchestrator.jobs.heartbeat import HEARTBEAT, OUTCOME, Heartbeat, WorkerReport
from orchestrator.jobs.prepared_sets import settled
from orchestrator.jobs.processes import REGISTERED_PROCESS, RegisteredProcess
from orchestrator.jobs.records import Event, RecordStore
from orchestrator.jobs.submissions import read_submitted
from orchestrator.lifecycle.causes import failed_ranks, headline, reason_of, unwrapped
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import JobRecord, JobState, Lending
from orchestrator.lifecycle.steps import is_ended_by_ray
from orchestrator.specs.envelope import Origin
from orchestrator.specs.group import job_of
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.store.keys import AttemptPaths, JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store

HEARTBEAT_EVERY_S = 3.0
STOP_POLL_EVERY_S = 0.5
DRIVER_ANSWER_S = 20.0
ENDED_BY_RAY_WITHIN_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Progress:
    """How far an attempt is; the driver changes it, the heartbeat shows it.

    Attributes:
        phase: What it does.
        done: Steps or images that are done.
        total: Units in all.
        unit: What is counted: "steps", "images".
        rate_per_s: Units a second, lately.
        committed: Units that no crash can lose.
        num_unplaced: Workers that it has room for and that are not there yet.
        workers: What each worker does.
        scores: What the work is worth so far: "loss", "bpd", "bpd_se".
        details: What else `status` shows; nothing is decided from it.
    """

    phase: Phase = Phase.STARTING
    done: float = 0
    total: int = 0
    unit: str = "steps"
    rate_per_s: float = 0.0
    committed: int = 0
    num_unplaced: int = 0
    workers: Sequence[WorkerReport] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Allowance:
    """What the orchestrator lets an attempt do, as the record said last."""

    lending: Lending = Lending.KEEP


class Movement:
    """When an attempt had got further last: a heart may beat where nothing moves."""

    def __init__(self) -> None:
        self._seen: object = None
        self._at: datetime | None = None

    def noted(self, progress: Progress, now: datetime) -> datetime:
        """Look at the progress and return when it was another one than before."""
        hands = [(worker.rank, worker.shard, worker.step) for worker in progress.workers]
        seen = (progress.phase, progress.done, progress.committed, hands)
        if self._at is None or seen != self._seen:
            self._seen, self._at = seen, now
        return self._at


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job, as its driver sees it.

    Attributes:
        store: The truth.
        spec: What was asked.
        record: The record as it was when the attempt began.
        number: The attempt's number.
        progress: What the heartbeat shows.
        movement: When that had changed last.
        stop: Set once the attempt is to end; `stop_request` then tells how.
        origin: Where the job comes from: a smoke test ends after its look.
        allowance: What room beyond its placement it may use.
    """

    store: ObjectStore
    spec: Job
    record: JobRecord
    number: int
    progress: Progress = field(default_factory=Progress)
    movement: Movement = field(default_factory=Movement)
    stop: StopSignal = field(default_factory=StopSignal)
    origin: Origin = field(default_factory=Origin)
    allowance: Allowance = field(default_factory=Allowance)

    @classmethod
    def open(cls, store: ObjectStore, job_id: str, number: int) -> "Attempt":
        """Return the attempt. Raises: AttemptSupersededError, JobNotFoundError."""
        records = RecordStore(store)
        record = records.read(job_id).record
        if record.attempt != number or not record.state.has_processes:
            raise AttemptSupersededError(job_id, number)
        asked = read_submitted(records, job_id)
        spec = settled(store, job_id, job_of(asked.spec, job_id))
        progress = Progress(total=spec.total, unit=JOB_KINDS[spec.kind].unit)
        return cls(store, spec, record, number, progress, origin=asked.origin)

    @property
    def address(self) -> AttemptAddress:
        """What its other processes find it by."""
        return AttemptAddress(
            store_uri=self.store.uri, job_id=self.record.job_id, attempt=self.number
        )

    @property
    def job_paths(self) -> JobPaths:
        """The job's keys."""
        return JobPaths(self.record.job_id)

    @property
    def paths(self) -> AttemptPaths:
        """The attempt's keys."""
        return self.job_paths.attempt(self.number)

    def tell(self, message: str) -> None:
        """Write an event into the job's history."""
        event = Event(at=self.store.now(), message=message, attempt=self.number)
        RecordStore(self.store).append_event(self.record.job_id, event)

    def stop_request(self) -> StopRequest | None:
        """Return the request to end, if there is one: the record of this attempt is STOPPING.

        Raises:
            JobNotFoundError: Somebody deleted the job.
        """
        record = RecordStore(self.store).read(self.record.job_id).record
        if record.attempt != self.number or record.state is not JobState.STOPPING:
            return None
        return StopRequest(at=record.changed_at, grace_s=record.stop_grace_s, reason=record.reason)

    def decide_once(self, proposal: Decisions) -> Decisions:
        """Fix what changes bits for the whole job, and return what is fixed.

        The first attempt's word stands; later ones get it back whatever they propose.
        """
        own = {"format_version": 1, "attempt": self.number, **proposal.values}
        key, body = self.job_paths.decisions, Decisions(own).encode()
        try:
            self.store.put(key, body, if_absent=True)
        except ConditionFailedError:
            body = self.store.get(key).body
        return decode_decisions(body, key)

    def put_outcome(self, outcome: Outcome) -> None:
        """Say what the attempt came to; the first word stands."""
        try:
            self.store.put(self.paths.outcome, OUTCOME.encode(outcome), if_absent=True)
        except ConditionFailedError:
            logger.warning(
                "job=%s attempt=%d has an outcome already", self.record.job_id, self.number
            )

    def beat(self) -> None:
        """Write the heartbeat."""
        said = {**vars(self.progress), "workers": tuple(self.progress.workers)}
        moved_at = self.movement.noted(self.progress, self.store.now())
        heartbeat = Heartbeat(at=self.store.now(), moved_at=moved_at, **said)
        self.store.put(self.paths.heartbeat, HEARTBEAT.encode(heartbeat))


def register_process(store: ObjectStore, paths: AttemptPaths, role: str, node_id: str = "") -> None:
    """Tell the store that this process works for an attempt, so that its end can be proven.

    Args:
        store: Where to.
        paths: The attempt's keys.
        role: "driver", "worker-0", ...
        node_id: The Ray node it runs on, if it knows that already.
    """
    process = RegisteredProcess(
        role=role,
        **asdict(ProcessIdentity.of(psutil.Process(), node_id)),
        host=socket.gethostname(),
        python=platform.python_version(),
    )
    key = f"{paths.processes}{role}-{os.getpid()}.json"
    store.put(key, REGISTERED_PROCESS.encode(process))


def register_driver(attempt: Attempt) -> None:
    """Tell the store on which node of Ray's this driver runs; it has just joined Ray."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    register_process(attempt.store, attempt.paths, "driver", node_id)


def run_attempt(
    store_uri: str, job_id: str, number: int, work: Callable[[Attempt], Outcome]
) -> int:
    """Run one attempt to its outcome and return the process's exit code.

    Args:
        store_uri: The store.
        job_id: The job.
        number: The attempt.
        work: What to do; its errors become the outcome's reason.
    """
    store = open_store(store_uri, answer_within_s=DRIVER_ANSWER_S)
    attempt = Attempt.open(store, job_id, number)
    register_process(store, attempt.paths, "driver")
    # Once more: whoever gave the attempt up in between has not seen this process.
    attempt = Attempt.open(store, job_id, number)
    with LogShipper(store, attempt.paths, "driver", 0), _heartbeat(attempt):
        try:
            outcome = work(attempt)
        except Exception as error:
            is_ours = isinstance(unwrapped(error), OrchestratorError)
            logger.error(
                "job=%s attempt=%d ends: %s", job_id, number, headline(error), exc_info=not is_ours
            )
            outcome = _failed(error, attempt)
        _beat_last(attempt)
        attempt.put_outcome(outcome)
    return _exit_code(outcome, attempt)


def _beat_last(attempt: Attempt) -> None:
    """Say how far the attempt came before its end is read: what it is worth is known only now."""
    try:
        attempt.beat()
    except StoreError as error:  # the outcome says what matters, and waits longer
        logger.warning("job=%s its last heartbeat is lost: %s", attempt.record.job_id, error)


def _exit_code(outcome: Outcome, attempt: Attempt) -> int:
    """Return what makes Ray's own list of jobs say of the attempt what the record says.

    Only Ray can note that a job was stopped, so one that was waits for Ray to end it.
    """
    if outcome.succeeded:
        return 0
    if is_ended_by_ray(outcome, _stop_reason(attempt)):
        time.sleep(ENDED_BY_RAY_WITHIN_S)  # SIGTERM comes in between
        return 128 + signal.SIGTERM
    return 1


def _stop_reason(attempt: Attempt) -> str | None:
    try:
        request = attempt.stop_request()
    except (StoreError, JobNotFoundError):
        return None
    return request.reason if request else None


def _failed(error: Exception, attempt: Attempt) -> Outcome:
    failed = failed_ranks(error)
    nodes = {worker.node_id for worker in attempt.progress.workers if worker.rank in failed}
    return Outcome(
        reason=reason_of(error),
        message=headline(error),
        progress=attempt.progress.committed,
        failed_node_ids=tuple(sorted(node for node in nodes if node)),
    )


@contextmanager
def _heartbeat(attempt: Attempt) -> Iterator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=beat_until, args=(attempt, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)


def beat_until(attempt: Attempt, ended: threading.Event) -> None:
    """Beat, and hand on a stop that the record asks for, until `ended` is set."""
    since_beat_s, shown_phase = HEARTBEAT_EVERY_S, None
    while not ended.wait(STOP_POLL_EVERY_S):
        since_beat_s += STOP_POLL_EVERY_S
        try:
            phase = attempt.progress.phase
            if since_beat_s >= HEARTBEAT_EVERY_S or phase != shown_phase:
                attempt.beat()
                since_beat_s, shown_phase = 0.0, phase
            if not attempt.stop.is_set() and must_stop(attempt):
                attempt.stop.set()
        except StoreError as error:
            logger.warning("job=%s heartbeat is late: %s", attempt.record.job_id, error)
        except Exception:
            # The top of a thread: without it no stop is heard, and the attempt looks dead.
            logger.exception("job=%s heartbeat is late", attempt.record.job_id)


def must_stop(attempt: Attempt) -> bool:
    """Read the record: note what room the attempt may use, and tell whether it is to end."""
    try:
        current = RecordStore(attempt.store).read(attempt.record.job_id).record
    except JobNotFoundError:  # somebody deleted it
        return True
    # A record that is read as none for a moment looks like that of no attempt at all.
    if current.attempt == attempt.number:
        attempt.allowance.lending = current.lending
    works = current.state in (JobState.STARTING, JobState.RUNNING)
    return current.attempt > attempt.number or (current.attempt == attempt.number and not works)
