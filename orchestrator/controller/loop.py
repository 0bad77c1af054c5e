"""The orchestrator's loop: look at the store and at Ray, decide, act, and write down what is so.

Nothing is kept in memory that cannot be read back, so the process may die at any line. Every step
is small and may be taken twice: records move with If-Match, Ray Jobs have one id an attempt, and
requests are dropped only once a record shows them handled.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from orchestrator.cluster.ray_cluster import Cluster
from orchestrator.controller.adoption import LiveJob
from orchestrator.controller.agreed import Agreed
from orchestrator.controller.allowances import Allowances
from orchestrator.controller.answering import Answering
from orchestrator.controller.attempt_steps import AttemptControl
from orchestrator.controller.group_steps import Seen
from orchestrator.controller.growth import Growth
from orchestrator.controller.holding import Held, Holding
from orchestrator.controller.lease import Lease
from orchestrator.controller.lending import Lender, may_grow
from orchestrator.controller.looking import snapshot_of
from orchestrator.controller.measures import Measures
from orchestrator.controller.node_board import NodeBoard
from orchestrator.controller.rounds import START, Rounds
from orchestrator.controller.settling import Settler
from orchestrator.jobs.heartbeat import HEARTBEAT
from orchestrator.jobs.index_entry import IndexEntry, index_entry
from orchestrator.jobs.marks import Mark, drop_mark
from orchestrator.jobs.queue import SNAPSHOT
from orchestrator.jobs.records import RecordStore
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
        self._held = Holding(store, self._records, self._control, self._rounds, lease.renew)
        self._answering = Answering(store, self._records, self._held, self._rounds, lease.renew)
        self._board = NodeBoard(store)
        self._growth = Growth(cluster, store.uri)
        self._jobs = self._held.jobs
        self.jobs: Mapping[str, LiveJob] = MappingProxyType(self._jobs)
        self._settler = Settler(store, self._records, self._jobs)
        self._lender = Lender()
        self._allowances = Allowances(store, lease)
        self._agreed = Agreed(store)
        self._spent: Mapping[str, str] = {}
        self.measures = Measures()
        self._positions: dict[str, int] = {}
        self._outlooks: Mapping[str, str] = {}
        self._shown = b""

    def take_over(self) -> None:
        """Read all live jobs and write each record anew, so that an earlier orchestrator's fail."""
        live_ids = self._records.queued_ids()
        self._held.index.load(live_ids, self._lease.renew)
        self._held.adopt(live_ids)

    def step(self) -> None:
        """Look once at everything and take what follows."""
        with self._rounds.step(self._is_starting):
            self._step()

    def _step(self) -> None:
        self._lease.renew()
        self._held.adopt_unseen(ADOPTED_A_LOOP)
        self.answer_requests()
        for job in list(self._jobs.values()):
            if job.record.state.has_processes:
                self._lease.renew()
                self._held.guarded("attempt", job, self._follow)
        self._held.unread.follow()
        self._held.groups.follow({i: Seen(job.record, job.said) for i, job in self._jobs.items()})
        self._lease.renew()
        self._held.curves.follow(self._jobs)
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
        self._answering.answer()

    def _is_starting(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        return job is not None and job.record.state is JobState.STARTING

    def is_asked(self) -> bool:
        """Return whether requests have come since the last step, to be answered before the next."""
        return self._answering.is_asked()

    def met_unknown(self) -> bool:
        """Return whether since the last call a job was met that asks for what nobody here knows."""
        return self._held.met_unknown()

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
                self._held.guarded("pause", job, self._save_and_wait)

    def _save_and_wait(self, job: LiveJob) -> None:
        if must_pause(job.record, self._spent):  # it may have been read anew
            job.current = self._control.pause(job.current, self._spent[job.record.queue])

    def _leave(self, draining: frozenset[str]) -> None:
        """Have the jobs on nodes that are about to go save their work and queue again."""
        for job in [job for job in self._jobs.values() if must_move(job.record, draining)]:
            self._lease.renew()
            self._held.guarded("drain", job, partial(self._move_away, leaving=draining))

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
                self._held.guarded(START, job, start)
            else:
                self._held.guarded("preemption", job, partial(self._preempt, by=action.for_job))

    def _lend(self, nodes: list[NodeCapacity]) -> None:
        """Write into the records of fleets what they may do with room beyond their placement."""
        jobs, now = list(self._jobs.values()), self._store.now()
        if not any(may_grow(job.record, nodes) for job in jobs):
            return
        answers = self._lender.decide(jobs, self.snapshot(nodes), now, self._agreed.limits.concerns)
        for job_id, lending in answers.items():
            job = self._jobs[job_id]
            if job.record.lending is not lending:
                self._held.guarded("lending", job, partial(self._note_lending, lending=lending))

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
                job.is_settled = self._held.guarded("queue", job, settle)

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
        ended = self._held.end_ended()
        self._lease.guard()
        self._held.index.write(self._held.entries(self._entry), self._store.now())
        self._answering.drop_deleted()
        for job in ended:
            if isinstance(job, LiveJob) and self._held.curves.holds(job):
                continue
            self._rounds.serve("index", job.record.job_id, partial(self._let_go, job))

    def _let_go(self, job: Held) -> None:
        drop_mark(self._store, Mark.QUEUE, job.record.job_id)
        self._held.forget(job.record.job_id)

    def _entry(self, job: Held) -> IndexEntry:
        is_queued = job.record.state is JobState.QUEUED
        position = self._positions.get(job.record.job_id) if is_queued else None
        outlook = self._outlooks.get(job.record.job_id, "") if is_queued else ""
        return index_entry(job.record, job.said, position, outlook)
