"""One attempt of a job as its driver sees it: identity, heartbeat, stop request and outcome."""

import logging
import os
import platform
import socket
from dataclasses import asdict, dataclass, field

import psutil

from orchestrator.attempts.address import AttemptAddress
from orchestrator.attempts.progress import Allowance, Movement, Progress
from orchestrator.attempts.stop import StopRequest, StopSignal
from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.errors import (
    AttemptSupersededError,
    ConditionFailedError,
)
from orchestrator.jobs.decisions import Decisions, decode_decisions
from orchestrator.jobs.heartbeat import HEARTBEAT, OUTCOME, Heartbeat
from orchestrator.jobs.prepared_sets import settled
from orchestrator.jobs.processes import REGISTERED_PROCESS, RegisteredProcess
from orchestrator.jobs.records import Event, RecordStore
from orchestrator.jobs.submissions import read_submitted
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.specs.envelope import Origin
from orchestrator.specs.group import job_of
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.store.keys import AttemptPaths, JobPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)


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
