"""Takes an attempt from its beginning to its end: start, submit, preempt, stop, end, release."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from orchestrator.cluster.entrypoints import python_entrypoint
from orchestrator.cluster.ray_cluster import Cluster
from orchestrator.controller.admission import (
    resolve_resources,
    unseen_by_smoke,
    with_accelerator,
)
from orchestrator.controller.attempt_view import AttemptSight, AttemptView, submission_id
from orchestrator.controller.committed import committed_units
from orchestrator.jobs.heartbeat import Heartbeat
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.lifecycle.allowance import paused
from orchestrator.lifecycle.attempts import (
    begun,
    moved_away,
    preempted,
    released,
    stopping,
)
from orchestrator.lifecycle.retry import Restart
from orchestrator.lifecycle.state import JobRecord, JobState, Placement, Reason
from orchestrator.lifecycle.steps import (
    MAY_BE_THE_NODES_END,
    Fail,
    Kill,
    Requeue,
    Run,
    Step,
    Stop,
    Submit,
    Succeed,
    Terminate,
    blamed_nodes,
    next_step,
    with_lost_nodes,
)
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

STOP_GRACE_S = 30.0


class AttemptControl:
    """Follows one attempt at a time; holds nothing between two calls.

    Args:
        store: The truth.
        cluster: Where attempts run.
        records: Writes under the orchestrator's lease.
    """

    def __init__(self, store: ObjectStore, cluster: Cluster, records: RecordStore) -> None:
        self._store = store
        self._cluster = cluster
        self._records = records
        self._sight = AttemptSight(store, cluster)

    def start(
        self,
        current: VersionedRecord,
        spec: Job,
        to: Mapping[str, int],
        nodes: Sequence[NodeCapacity],
        *,
        is_smoke: bool = False,
    ) -> VersionedRecord:
        """Begin a queued job's next attempt and return its record.

        Args:
            current: The job's record.
            spec: What is asked.
            to: Workers of each node, by its id.
            nodes: As Ray sees them.
            is_smoke: Whether the job is a smoke test.

        Raises:
            ConditionFailedError: Somebody else moved the record.
            RayUnavailableError: Ray does not take it; the attempt has begun, and `follow` tries on.
        """
        record = current.record
        resources = record.resources or resolve_resources(spec, nodes, is_smoke=is_smoke)
        resources = with_accelerator(resources, spec, to, nodes)
        placement = Placement(
            workers_by_node=dict(to),
            cpus_per_worker=resources.cpus_per_worker,
            gpus_per_worker=resources.gpus_per_worker,
            memory_gb_per_worker=resources.memory_gb_per_worker,
        )
        started = begun(
            record,
            at=self._store.now(),
            resources=resources,
            placement=placement,
            accelerators={node.node_id: node.accelerator for node in nodes},
            remark=unseen_by_smoke(spec, resources, nodes) if is_smoke else "",
        )
        current = self._records.move(current, started)
        self.submit(current.record)
        return current

    def preempt(self, current: VersionedRecord, by: str) -> VersionedRecord:
        """Have a running job save its work and make room for another one; return its record.

        Raises:
            ConditionFailedError: Somebody else moved the record.
        """
        moved = preempted(current.record, at=self._store.now(), by=by)
        return self._records.move(current, moved)

    def move_away(self, current: VersionedRecord, leaving: Collection[str]) -> VersionedRecord:
        """Have a job save its work and queue again, since nodes of it are being drained.

        Raises:
            ConditionFailedError: Somebody else moved the record.
        """
        placement = current.record.placement
        own = [node for node in placement.workers_by_node if node in leaving] if placement else []
        notice_s = self._cluster.notice_s(own)
        moved = moved_away(current.record, at=self._store.now(), leaving=leaving, notice_s=notice_s)
        return self._records.move(current, moved)

    def pause(self, current: VersionedRecord, why: str) -> VersionedRecord:
        """Have a job save its work and wait, since its queue has no GPU-hours left this month.

        Raises:
            ConditionFailedError: Somebody else moved the record.
        """
        return self._records.move(current, paused(current.record, at=self._store.now(), why=why))

    def submit(self, record: JobRecord) -> None:
        """Hand the current attempt to Ray. Raises: RayUnavailableError."""
        driver = JOB_KINDS[record.kind].driver
        entrypoint = python_entrypoint(driver, self._store.uri, record.job_id, record.attempt)
        metadata = {"job": record.job_id, "attempt": str(record.attempt), "kind": record.kind}
        self._cluster.start(submission_id(record), entrypoint, metadata)

    def workers_there(self, record: JobRecord) -> Mapping[str, int]:
        """Return the workers of the current attempt that were there when followed last, by node."""
        known = self._sight.known(record)
        return Counter(process.node_id for process in known if process.role != "driver")

    def follow(
        self, current: VersionedRecord, spec: Job, said: Heartbeat | None
    ) -> VersionedRecord:
        """Take the step that follows for a job with processes, and return its record.

        Raises:
            ConditionFailedError: Somebody else moved the record.
            RayUnavailableError: Ray does not answer.
        """
        record = current.record
        view = self._sight.look(record, said)
        step = next_step(current.record, view.facts, spec.max_runtime_s, spec.max_gpu_hours)
        if step is None:
            return current
        if isinstance(step, Submit | Terminate | Kill):
            self._press(step, current.record, view)
            return current
        return self._moved_on(current, self._moved(step, current.record, spec, view))

    def end(self, current: VersionedRecord, said: Heartbeat | None) -> VersionedRecord:
        """Take the step that follows for a job that is STOPPING and whose spec cannot be read.

        Raises:
            ConditionFailedError: Somebody else moved the record.
            RayUnavailableError: Ray does not answer.
        """
        view = self._sight.look(current.record, said)
        step = next_step(current.record, view.facts, None)
        if step is None:
            return current
        if isinstance(step, Submit | Terminate | Kill):
            self._press(step, current.record, view)
            return current
        return self._moved_on(current, self._released(current.record, view, view.said))

    def _moved_on(self, current: VersionedRecord, record: JobRecord) -> VersionedRecord:
        """Write a record that moved, and forget the processes of an attempt that is over."""
        moved = self._records.move(current, record)
        if not moved.record.state.has_processes:
            self._sight.forget(current.record)
        return moved

    def _press(self, step: Submit | Terminate | Kill, record: JobRecord, view: AttemptView) -> None:
        match step:
            case Submit():
                self.submit(record)
            case Terminate():
                self._cluster.stop(submission_id(record))
            case Kill():
                self._cluster.kill(view.running)

    def _moved(self, step: Step, record: JobRecord, spec: Job, view: AttemptView) -> JobRecord:
        now = self._store.now()
        match step:
            case Run():
                return record.moved_to(JobState.RUNNING, at=now, message="running")
            case Succeed():
                message = view.facts.outcome.message if view.facts.outcome else ""
                done = record.moved_to(JobState.SUCCEEDED, at=now, message=message)
                return done.with_attempt(ended_at=now, progress=self._progress(spec, record, view))
            case Stop(reason, message):
                return stopping(record, now, reason, message, JobState.FAILED, STOP_GRACE_S)
            case Requeue(message):
                return stopping(record, now, Reason.PREEMPTED, message, JobState.QUEUED)
            case Fail(reason, message):
                return self._failed(record, spec, reason, message, view)
            case _:
                return self._released(record, view, self._progress(spec, record, view))

    def _progress(self, spec: Job, record: JobRecord, view: AttemptView) -> int:
        """Return what is committed, by the store: what an attempt commits last it may never say."""
        return max(view.said, committed_units(self._store, JobPaths(record.job_id), spec))

    def _failed(
        self, record: JobRecord, spec: Job, reason: Reason, message: str, view: AttemptView
    ) -> JobRecord:
        """Return the record on its way to another attempt or to FAILED, as the policy decides."""
        now = self._store.now()
        record = record.with_attempt(progress=self._progress(spec, record, view))
        record = self._blame_nodes(record, reason, view)
        reason = record.reason or reason
        counted = [a for a in record.attempts if a.number >= record.first_counted_attempt]
        verdict = spec.retry.decide(reason, counted)
        text = f"{message} ({verdict.message})" if message else verdict.message
        if isinstance(verdict, Restart):
            record = replace(
                record,
                avoided_nodes=verdict.avoid_nodes,
                not_before=now + timedelta(seconds=verdict.after_s),
            )
            return stopping(record, now, reason, text, JobState.QUEUED)
        return stopping(record, now, reason, text, JobState.FAILED)

    def _released(self, record: JobRecord, view: AttemptView, progress: int) -> JobRecord:
        if record.reason in MAY_BE_THE_NODES_END:
            record = self._blame_nodes(record, record.reason, view)  # Ray knows by now
        facts = view.facts
        in_grace = facts.in_state_s - facts.outcome_age_s <= record.stop_grace_s
        ended = released(record, facts.outcome, at=self._store.now(), in_grace=in_grace)
        return ended.with_attempt(progress=progress)

    def _blame_nodes(self, record: JobRecord, reason: Reason, view: AttemptView) -> JobRecord:
        """Return the record with why its attempt ended, and by which nodes' fault."""
        nodes, alive = record.attempts[-1].node_ids, [n.node_id for n in self._cluster.nodes()]
        reason = with_lost_nodes(reason, nodes, alive)
        # A driver that never began met no node of the attempt: it starts elsewhere.
        known = nodes if view.facts.has_begun else ()
        blamed = blamed_nodes(reason, view.facts.outcome, known, alive)
        return replace(record, reason=reason).with_attempt(reason=reason, failed_node_ids=blamed)
