"""The orchestrator's loop: look at the store and at Ray, decide, act, and write down what is so.

Nothing is kept in memory that cannot be read back, so the process may die at any line. Every step
is small and may be taken twice: records move with If-Match, Ray Jobs have one id an attempt, and
requests are dropped only once a record shows them handled.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType

from orchestrator.cluster.ray_cluster import Cluster
from orchestrator.controller.adoption import Adopter, LiveJob
from orchestrator.controller.agreed import Agreed
from orchestrator.controller.allowances import Allowances
from orchestrator.controller.attempt_steps import AttemptControl
from orchestrator.controller.curve_steps import CurveControl
from orchestrator.controller.group_steps import GroupControl, LiveGroup, Seen
from orchestrator.controller.growth import Growth
from orchestrator.controller.lease import Lease
from orchestrator.controller.lending import Lender, may_grow
from orchestrator.controller.looking import snapshot_of
from orchestrator.controller.measures import Measures
from orchestrator.controller.node_board import NodeBoard
from orchestrator.controller.requests import handle_request
from orchestrator.controller.rounds import START, Rounds
from orchestrator.controller.settling import Settler
from orchestrator.controller.smoke_gate import cancels_of_smoke
from orchestrator.controller.unread import UnreadControl, UnreadJob
from orchestrator.errors import ConditionFailedError, JobNotFoundError
from orchestrator.jobs.heartbeat import HEARTBEAT
from orchestrator.jobs.inbox import Request, Verb, post_request, read_requests, request_keys
from orchestrator.jobs.index import IndexEntry, JobIndex, index_entry
from orchestrator.jobs.marks import Mark, drop_mark
from orchestrator.jobs.queue import SNAPSHOT
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.jobs.troubles import Troubles
from orchestrator.lifecycle.allowance import must_pause
from orchestrator.lifecycle.attempts import must_move
from orchestrator.lifecycle.state import JobState, Lending
from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.nodes import NodeCapacity, NodeType
from orchestrator.scheduling.outlook import outlooks
from orchestrator.scheduling.promised import promised_nodes
from orchestrator.scheduling.snapshot import Snapshot, Start, in_line
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

ADOPTED_A_LOOP = 128
DROP_REQUEST_AFTER = timedelta(minutes=10)

logger = logging.getLogger(__name__)


class Controller:
    """Moves all jobs of a store, as long as its lease holds.

    Args:
        store: The truth.
        cluster: The Ray cluster.
        lease: Held by this process.

    Attributes:
        jobs: What it follows by id, groups left out; to be read.
        measures: What it says of itself and the cluster as numbers.
    """

    def __init__(self, store: ObjectStore, cluster: Cluster, lease: Lease) -> None:
        self._store = store
        self._cluster = cluster
        self._lease = lease
        self._records = RecordStore(store, lease.guard, lease.fence)
        self._control = AttemptControl(store, cluster, self._records)
        self._rounds = Rounds(store)
        self._adopter = Adopter(self._records, Troubles(store, "adoption"))
        self._groups = GroupControl(store, self._records)
        self._unread = UnreadControl(store, self._records, self._control)
        self._curves = CurveControl(store, self._records, lease.renew)
        self._index = JobIndex(store)
        self._board = NodeBoard(store)
        self._growth = Growth(cluster, store.uri)
        self._jobs: dict[str, LiveJob] = {}
        self.jobs: Mapping[str, LiveJob] = MappingProxyType(self._jobs)
        self._settler = Settler(store, self._records, self._jobs)
        self._lender = Lender()
        self._allowances = Allowances(store, lease)
        self._agreed = Agreed(store)
        self._spent: Mapping[str, str] = {}
        self.measures = Measures()
        self._positions: dict[str, int] = {}
        self._outlooks: Mapping[str, str] = {}
        self._requests_seen: set[str] = set()
        self._deleted: list[Request] = []
        self._shown = b""

    def take_over(self) -> None:
        """Read all live jobs and write each record anew, so that an earlier orchestrator's fail."""
        live_ids = self._records.queued_ids()
        self._index.load(live_ids, self._lease.renew)
        self._adopt(live_ids)

    def step(self) -> None:
        """Look once at everything and take what follows."""
        with self._rounds.step(self._is_starting):
            self._step()

    def _step(self) -> None:
        self._lease.renew()
        unseen = [job for job in self._records.queued_ids() if self._known(job) is None]
        with self._adopter.round(unseen):
            self._adopt(unseen, ADOPTED_A_LOOP)
        self.answer_requests()
        for job in list(self._jobs.values()):
            if job.record.state.has_processes:
                self._lease.renew()
                self._guarded("attempt", job, self._follow)
        self._unread.follow()
        self._groups.follow({i: Seen(job.record, job.said) for i, job in self._jobs.items()})
        self._lease.renew()
        self._curves.follow(self._jobs)
        self._lease.renew()
        nodes = self._cluster.nodes()
        self._lease.guard()
        types, now = self._cluster.node_types(), self._store.now()
        self._board.show(nodes, [job.record for job in self._jobs.values()], types, now)
        self._pause()
        self._leave(frozenset(node.node_id for node in nodes if node.is_draining))
        self._schedule(nodes, types)
        self._lend(nodes)
        self.measures.look(list(self._jobs.values()), nodes, self._store.now())
        self._write_index()

    def answer_requests(self) -> None:
        """Handle what was asked for since the last look; what follows is the rest of a step."""
        self._requests_seen = set()
        for request in read_requests(self._store):
            self._lease.renew()
            self._requests_seen.add(request.key)
            self._answer(request)

    def _is_starting(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        return job is not None and job.record.state is JobState.STARTING

    def is_asked(self) -> bool:
        """Tell whether requests have come since the last step; they need not wait for the next."""
        return not self._requests_seen.issuperset(request_keys(self._store))

    def met_unknown(self) -> bool:
        """Tell whether since the last call a job was met that asks for what nobody here knows."""
        return self._adopter.met_unknown()

    def _adopt(self, job_ids: Iterable[str], at_most: int | None = None) -> None:
        for job in self._adopter.adopt(job_ids, self._lease.renew, at_most):
            self._index.drop(job.record.job_id)
            if isinstance(job, LiveGroup):
                self._groups.adopt(job)
            elif isinstance(job, UnreadJob):
                self._unread.adopt(job)
            else:
                self._jobs[job.record.job_id] = job

    def _known(self, job_id: str) -> LiveJob | LiveGroup | UnreadJob | None:
        held = self._jobs, self._groups.live, self._unread.live
        return next((jobs[job_id] for jobs in held if job_id in jobs), None)

    def _guarded(self, what: str, job: LiveJob, action: Callable[[LiveJob], None]) -> bool:
        """Act on one job so that its trouble does not hold up the others; tell whether it went."""
        went = self._rounds.serve(what, job.record.job_id, lambda: self._went(job, action))
        job.is_stale |= not went
        return went is True

    def _went(self, job: LiveJob, action: Callable[[LiveJob], None]) -> bool:
        try:
            self._refresh(job)
            action(job)
        except ConditionFailedError:
            return False
        return True

    def _refresh(self, job: LiveJob | LiveGroup | UnreadJob) -> VersionedRecord:
        """Read a record anew of which nobody knows whether its last write was done."""
        if job.is_stale:
            job.current = self._records.read_told(job.record.job_id)
            job.is_stale = False
        return job.current

    def _answer(self, request: Request) -> None:
        """Handle a request; one that cannot be handled is dropped after a while."""
        if self._rounds.serve("request", request.job_id, lambda: self._handled(request)):
            return
        if job := self._known(request.job_id):
            job.is_stale = True
        if self._store.now() - request.at > DROP_REQUEST_AFTER:
            logger.error("job=%s: its request %s is dropped", request.job_id, request.key)
            self._rounds.serve("request", request.job_id, partial(self._store.delete, request.key))

    def _handled(self, request: Request) -> bool:
        if request.verb is Verb.DELETE:
            self._take_deleted(request)
        else:
            self._handle(request)
        return True

    def _handle(self, request: Request) -> None:
        job = self._known(request.job_id)
        try:
            current = self._refresh(job) if job else self._records.read_told(request.job_id)
        except JobNotFoundError:
            self._store.delete(request.key)
            return
        try:
            if request.key not in current.record.handled_requests:
                current = handle_request(self._records, current, request, self._store.now())
        except ConditionFailedError:
            if job:
                job.is_stale = True
            return
        for smoke in cancels_of_smoke(self._records, request, self._jobs):
            post_request(self._store, smoke)
        if job:
            job.current = current
        else:  # also one that could not be read: by its record it may come to its end now
            self._adopter.look_again(request.job_id)
            if not current.record.state.has_ended:
                self._adopt([request.job_id])
        self._store.delete(request.key)

    def _take_deleted(self, request: Request) -> None:
        """Forget a job; whoever asked deletes, and may have made one of the same id since."""
        if not self._records.is_at_work(request.job_id):
            self._index.forget(request.job_id)
            self._forget(request.job_id)
        self._deleted.append(request)  # dropped once the index is written without it

    def _follow(self, job: LiveJob) -> None:
        if not job.record.state.has_processes:
            return  # its last move was done, though nobody was told so
        heartbeat = JobPaths(job.record.job_id).attempt(job.record.attempt).heartbeat
        job.said = HEARTBEAT.value(self._store, heartbeat)
        job.current = self._control.follow(job.current, job.spec, job.said)
        if job.record.state.has_ended:  # its last word may have come since
            job.said = HEARTBEAT.value(self._store, heartbeat)

    def _pause(self) -> None:
        """Have the jobs of queues that have used their month save their work and queue again."""
        records = [job.record for job in self._jobs.values()]
        self._agreed.look()
        hours, now = self._agreed.limits.gpu_hours, self._store.now()
        self._spent = self._allowances.follow(records, hours, now)
        for job in list(self._jobs.values()) if self._spent else []:
            if must_pause(job.record, self._spent):
                self._lease.renew()
                self._guarded("pause", job, self._save_and_wait)

    def _save_and_wait(self, job: LiveJob) -> None:
        if must_pause(job.record, self._spent):  # it may have been read anew
            job.current = self._control.pause(job.current, self._spent[job.record.queue])

    def _leave(self, draining: frozenset[str]) -> None:
        """Have the jobs on nodes that are about to go save their work and queue again."""
        for job in [job for job in self._jobs.values() if must_move(job.record, draining)]:
            self._lease.renew()
            self._guarded("drain", job, partial(self._move_away, leaving=draining))

    def _move_away(self, job: LiveJob, leaving: frozenset[str]) -> None:
        if must_move(job.record, leaving):  # it may have been read anew
            job.current = self._control.move_away(job.current, leaving)

    def _schedule(self, nodes: list[NodeCapacity], types: Sequence[NodeType]) -> None:
        queued = [job for job in self._jobs.values() if job.record.state is JobState.QUEUED]
        if not queued and not types:
            return
        seen = [*nodes, *promised_nodes(types, nodes)]  # what "auto" counts with
        self._settle(seen)
        snapshot = self.snapshot(seen, types)
        self._growth.follow(snapshot, self._store.now())
        if not queued:
            return
        self._show(snapshot)
        for action in decide(snapshot, self._store.now().timestamp()):
            job = self._jobs[action.job_id]
            if isinstance(action, Start):
                start = partial(self._start, to=action.placement, nodes=seen)
                self._guarded(START, job, start)
            else:
                self._guarded("preemption", job, partial(self._preempt, by=action.for_job))

    def _lend(self, nodes: list[NodeCapacity]) -> None:
        """Write into the records of fleets what they may do with room beyond their placement."""
        jobs, now = list(self._jobs.values()), self._store.now()
        if not any(may_grow(job.record, nodes) for job in jobs):
            return
        answers = self._lender.decide(jobs, self.snapshot(nodes), now, self._agreed.limits.concerns)
        for job_id, lending in answers.items():
            job = self._jobs[job_id]
            if job.record.lending is not lending:
                self._guarded("lending", job, partial(self._note_lending, lending=lending))

    def _note_lending(self, job: LiveJob, lending: Lending) -> None:
        if job.record.state is JobState.RUNNING:
            changed = replace(job.record, lending=lending)
            job.current = self._records.write(job.current, changed)

    def _show(self, snapshot: Snapshot) -> None:
        """Write down what is decided from, for `explain`; jobs' positions, for `list`."""
        self._positions = {
            job.job_id: place for place, job in enumerate(in_line(snapshot.queue), 1)
        }
        body = SNAPSHOT.encode(snapshot)
        if body != self._shown:
            self._lease.guard()
            self._store.put(keys.SNAPSHOT, body)
            self._shown, self._outlooks = body, outlooks(snapshot)

    def _settle(self, nodes: Sequence[NodeCapacity]) -> None:
        """Settle what the queued jobs need; who is in trouble is left out of this round."""
        for job in list(self._jobs.values()):
            if job.record.state is JobState.QUEUED:
                self._lease.renew()
                settle = partial(self._settler.settle, nodes=nodes)
                job.is_settled = self._guarded("queue", job, settle)

    def snapshot(self, nodes: list[NodeCapacity], types: Sequence[NodeType] = ()) -> Snapshot:
        """Return what the scheduler sees: jobs as they were settled last. Changes nothing.

        Args:
            nodes: The nodes that are there, and those that could be started.
            types: What the autoscaler may start.
        """
        return snapshot_of(
            self._jobs.values(),
            nodes,
            types,
            agreed=self._agreed,
            spent=self._spent,
            workers_there=self._control.workers_there,
            now=self._store.now(),
        )

    def _start(self, job: LiveJob, to: Mapping[str, int], nodes: list[NodeCapacity]) -> None:
        is_smoke = job.origin.is_smoke
        job.current = self._control.start(job.current, job.spec, to, nodes, is_smoke=is_smoke)

    def _preempt(self, job: LiveJob, by: str) -> None:
        job.current = self._control.preempt(job.current, by)

    def _write_index(self) -> None:
        """Write the index, and only then take the ended jobs' marks out of the queue."""
        groups, unread = self._groups.live.values(), self._unread.live.values()
        known: list[LiveJob | LiveGroup | UnreadJob] = [*groups, *unread, *self._jobs.values()]
        ended = [job for job in known if job.record.state.has_ended]
        for job in ended:
            self._index.end(index_entry(job.record, job.said))
        self._lease.guard()
        entries = [self._entry(job) for job in known if not job.record.state.has_ended]
        self._index.write(entries, self._store.now())
        for request in self._deleted:
            self._rounds.serve("request", request.job_id, partial(self._store.delete, request.key))
        self._deleted.clear()
        for job in ended:
            if isinstance(job, LiveJob) and self._curves.holds(job):
                continue
            self._rounds.serve("index", job.record.job_id, partial(self._let_go, job))

    def _let_go(self, job: LiveJob | LiveGroup | UnreadJob) -> None:
        drop_mark(self._store, Mark.QUEUE, job.record.job_id)
        self._forget(job.record.job_id)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._groups.let_go(job_id)
        self._unread.let_go(job_id)
        self._curves.let_go(job_id)

    def _entry(self, job: LiveJob | LiveGroup | UnreadJob) -> IndexEntry:
        is_queued = job.record.state is JobState.QUEUED
        position = self._positions.get(job.record.job_id) if is_queued else None
        outlook = self._outlooks.get(job.record.job_id, "") if is_queued else ""
        return index_entry(job.record, job.said, position, outlook)
