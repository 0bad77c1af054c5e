"""Who starts now, and who must make room: `decide`, a pure function of a snapshot and the time.

Jobs are served in the order of `in_line`. Each one in turn

1. starts, if its gang fits now: as many workers as fit, at least its minimum;
2. or is held a place, if it fits once what is stopping has stopped: nobody behind it gets that;
3. or evicts, if jobs of lower priority can make room for it, and it then gets that room: those
   before it go to other nodes once more is free;
4. or waits. The first that waits for capacity gets a reservation: the jobs behind it are started
   only on what the reservation leaves over, or if they provably end before it begins, or if they
   are preemptible and of lower priority, so that it can evict them. The first of each queue that
   waits for its quota gets the same for the quota alone, and holds up no other queue.

One reservation is enough: whoever is first in line is never delayed by a job behind it, and
everybody becomes first in line.
"""

from collections.abc import Hashable, Sequence

from orchestrator.scheduling.ledger import Ask, NodeLedger, QuotaLedger, Reservation
from orchestrator.scheduling.matching import accelerators_to_try, unsuited_nodes
from orchestrator.scheduling.placement import worker_of
from orchestrator.scheduling.preemption import Evictables, choose_victims
from orchestrator.scheduling.requests import QueuedJob, RunningJob
from orchestrator.scheduling.reservations import clock_of, reserve_nodes, reserve_quota
from orchestrator.scheduling.snapshot import Action, Preempt, Snapshot, Start, in_line, started_job

_Size = tuple[Hashable, ...]
_Line = list[tuple[QueuedJob, _Size]]


def decide(snapshot: Snapshot, now: float) -> list[Action]:
    """Return what to do; nothing once all of it has been asked for (`Snapshot.after`).

    Args:
        snapshot: Nodes, jobs and quotas as they are.
        now: Seconds since the epoch, by the store's clock.
    """
    actions: list[Action] = []
    line = _line(snapshot, now)
    while following := _without_vain(_Round(snapshot, now).walk(line), snapshot, now):
        actions += following
        snapshot = snapshot.after(following, now)
        started = {action.job_id for action in following}
        line = [entry for entry in line if entry[0].job_id not in started]
    return actions


def _without_vain(actions: Sequence[Action], snapshot: Snapshot, now: float) -> Sequence[Action]:
    """Return the actions without evictions for jobs that do not start once the victims are gone.

    A walk holds places on what is left between the victims of others. Once all have stopped the
    first in line may be packed otherwise, and nothing be left for one behind it: it evicts later,
    when the others have started.
    """
    while evicting := {action.for_job for action in actions if isinstance(action, Preempt)}:
        then = snapshot.after(actions, now)
        gone = {job.job_id for job in then.running if job.stopping}
        then = then.without(gone, requeued=gone)
        then_done = _Round(then, now).walk(_line(then, now))
        vain = evicting - {action.job_id for action in then_done if isinstance(action, Start)}
        if not vain:
            break
        actions = [one for one in actions if not (isinstance(one, Preempt) and one.for_job in vain)]
    return actions


def kept_for(snapshot: Snapshot, queue: str, now: float) -> list[Reservation]:
    """Return the reservations that a job of a queue may meet: of nodes, and of its quota.

    Args:
        snapshot: Nodes, jobs and quotas, with nothing left to decide.
        queue: The job's queue.
        now: Seconds since the epoch.
    """
    walked = _Round(snapshot, now)
    walked.walk(_line(snapshot, now))
    reservations = (walked.nodes.reservation, walked.quotas.reservation(queue))
    return [reservation for reservation in reservations if reservation is not None]


def asks_of(
    job: QueuedJob, nodes: NodeLedger, *, passes_nodes: bool = True, passes_quota: bool = True
) -> list[Ask]:
    """Return what a job may ask for, the dearest to it first: one ask for each type of GPU.

    It keeps away from the nodes that broke its attempts, unless it would then never fit.

    Args:
        job: The job.
        nodes: The nodes' ledger.
        passes_nodes: See `Ask`.
        passes_quota: See `Ask`.
    """
    unsuited = unsuited_nodes(job, nodes.nodes)
    ways = [
        unsuited | {node.node_id for node in nodes.nodes if node.accelerator != name}
        for name in accelerators_to_try(job, nodes.nodes)
    ]

    def ask(avoided: frozenset[str]) -> Ask:
        return Ask(worker_of(job), avoided, passes_nodes, passes_quota)

    careful = [ask(way | job.avoided_nodes) for way in ways or [unsuited]]
    if not job.avoided_nodes or any(nodes.num_ever(a) >= job.num_workers_min for a in careful):
        return careful
    return [ask(way) for way in ways or [unsuited]]


def _line(snapshot: Snapshot, now: float) -> _Line:
    """Return the jobs that could use capacity, in order, with what equal ones have in common."""
    return [
        (
            job,
            (
                job.cpus_per_worker,
                job.gpus_per_worker,
                job.num_workers_min,
                job.memory_gb_per_worker,
                job.accelerators,
                job.is_of_one_accelerator,
                job.labels,
                job.avoided_nodes,
                job.queue if job.queue in snapshot.quotas else None,
            ),
        )
        for job in in_line(snapshot.queue)
        if job.waits_for is None and job.not_before <= now
    ]


class _Round:
    """One walk down the line."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self.now = now
        self.running: list[RunningJob] = list(snapshot.running)
        self.nodes = NodeLedger(snapshot.nodes, snapshot.running)
        self.quotas = QuotaLedger(snapshot.quotas, snapshot.running)
        self.evictables = Evictables(snapshot.running, self.nodes)
        self.actions: list[Action] = []
        self._asks: dict[tuple[_Size, bool, bool], list[Ask]] = {}
        self._waiting: set[tuple[_Size, bool, bool]] = set()
        self._all_waiting: set[_Size] = set()

    def walk(self, line: _Line) -> Sequence[Action]:
        for job, size in line:
            if size not in self._all_waiting:
                self._serve(job, size)
        return self.actions

    def _serve(self, job: QueuedJob, size: _Size) -> None:
        """Find out what to do about a job; what was not possible for its equal before it isn't."""
        on_nodes, on_quota = self.nodes.reservation, self.quotas.reservation(job.queue)
        passes_nodes = on_nodes is None or on_nodes.lets_pass(job, self.now)
        passes_quota = on_quota is None or on_quota.lets_pass(job, self.now)
        if (size, passes_nodes, passes_quota) in self._waiting:
            return
        key = (size, passes_nodes, passes_quota)
        if key not in self._asks:
            self._asks[key] = asks_of(
                job, self.nodes, passes_nodes=passes_nodes, passes_quota=passes_quota
            )
        asks = self._asks[key]
        for way in (self._start, self._hold, self._evict):
            if any(way(job, ask) for ask in asks):
                return
        self._waiting.add(key)
        if passes_nodes and passes_quota:
            self._all_waiting.add(size)
        self._reserve(job, next((ask for ask in asks if self._fits_ever(job, ask)), asks[0]))

    def _fits_ever(self, job: QueuedJob, ask: Ask) -> bool:
        return self.nodes.num_ever(ask) >= job.num_workers_min

    def _start(self, job: QueuedJob, ask: Ask) -> bool:
        fitting = min(
            job.num_workers_max, self.nodes.num_now(ask), self.quotas.num_now(job.queue, ask)
        )
        if fitting < job.num_workers_min:
            return False
        placement = self.nodes.take_now(ask, fitting)
        self.quotas.take(job.queue, ask, fitting, is_now=True)
        self.running.append(started_job(job, placement, self.now))
        self.actions.append(Start(job.job_id, placement))
        return True

    def _hold(self, job: QueuedJob, ask: Ask) -> bool:
        fitting = min(
            job.num_workers_max, self.nodes.num_soon(ask), self.quotas.num_soon(job.queue, ask)
        )
        if fitting < job.num_workers_min:
            return False
        placement = self.nodes.hold(ask, fitting)
        self.quotas.take(job.queue, ask, fitting, is_now=False)
        self.running.append(started_job(job, placement, self.now))
        return True

    def _evict(self, job: QueuedJob, ask: Ask) -> bool:
        victims = choose_victims(job, ask, self.nodes, self.quotas, self.evictables)
        for victim in victims:
            self.nodes.release(victim)
            self.quotas.release(victim)
            self.running.remove(victim)
            self.actions.append(Preempt(victim.job_id, for_job=job.job_id))
        self.evictables.remove(victims)
        return bool(victims) and self._hold(job, ask)

    def _reserve(self, job: QueuedJob, ask: Ask) -> None:
        """Reserve for the job what it waits for, unless somebody before it waits or it is vain."""
        if not self._fits_ever(job, ask):
            return
        if self.quotas.num_ever(job.queue, ask) < job.num_workers_min:
            return
        freed = 0
        if job.queue in self.quotas.queues:
            freed = self.evictables.quota_below(job.priority, job.queue)
        if self.quotas.num_soon(job.queue, ask, freed) < job.num_workers_min:
            if self.quotas.reservation(job.queue) is None:
                clock = clock_of(self.running, self.now)
                reserve_quota(job, ask, self.quotas, self.evictables, clock)
        elif self.nodes.reservation is None:
            clock = clock_of(self.running, self.now)
            reservation = reserve_nodes(job, ask, self.nodes, self.evictables, clock)
            self.quotas.reserve(job.queue, reservation, ask, job.num_workers_min, freed)
