"""Which running jobs make room for a job of higher priority.

Only preemptible jobs of strictly lower priority are ever asked, so two equals never swap. The
victims are of the lowest priorities that are enough (or a victim would itself evict those that
were spared), then the fewest, then those that lose the least work since their last checkpoint;
of equals the one that came last. The search is greedy; that the victims make the placement
possible, and that none of them could be spared, is checked exactly.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.scheduling.ledger import Ask, NodeLedger, QuotaLedger
from orchestrator.scheduling.placement import IntArray, gpu_slots, to_units, worker_of
from orchestrator.scheduling.requests import QueuedJob, RunningJob

Rank = tuple[int, float, float, str]
Held = tuple[int, int, int, int]


class Evictables:
    """The running jobs that may be asked to make room, and what they would free."""

    def __init__(self, running: Sequence[RunningJob], nodes: NodeLedger) -> None:
        candidates = [job for job in running if job.preemptible and not job.stopping]
        self.jobs = sorted(candidates, key=lambda job: job.priority)
        self._levels = sorted({job.priority for job in candidates})
        # (num_levels + 1, num_nodes, 3): what all jobs below the n-th level hold.
        self._freed = np.zeros((len(self._levels) + 1, *nodes.capacity.shape), dtype=np.int64)
        self._held = {job.job_id: held_by(job, nodes) for job in candidates}
        for job in candidates:
            level = bisect_left(self._levels, job.priority)
            for node, *amounts in self._held[job.job_id]:
                self._freed[level + 1, node] += amounts
        np.cumsum(self._freed, axis=0, out=self._freed)

    def jobs_below(self, priority: int) -> list[RunningJob]:
        """Return those of lower priority, the lowest first."""
        return self.jobs[: bisect_left(self.jobs, priority, key=lambda job: job.priority)]

    def freed_below(self, priority: int) -> IntArray:
        """Return (num_nodes, 3) int64: what all of lower priority hold."""
        freed: IntArray = self._freed[bisect_left(self._levels, priority)]
        return freed

    def quota_below(self, priority: int, queue: str) -> int:
        """Return the ten-thousandths of GPUs that a queue's jobs of lower priority hold."""
        return sum(to_units(job.gpus) for job in self.jobs_below(priority) if job.queue == queue)

    def remove(self, victims: Sequence[RunningJob]) -> None:
        """Take out jobs that have been asked to stop."""
        for victim in victims:
            level = bisect_left(self._levels, victim.priority)
            for node, *amounts in self._held.pop(victim.job_id):
                self._freed[level + 1 :, node] -= amounts
        self.jobs = [job for job in self.jobs if job.job_id in self._held]


def held_by(job: RunningJob, nodes: NodeLedger) -> list[Held]:
    """Return what a job holds as (node index, CPUs, GPUs, GB), in ten-thousandths."""
    cpus, gpus, memory = worker_of(job)
    return [(node, n * cpus, n * gpus, n * memory) for node, n in nodes.entries(job.placement)]


def choose_victims(
    job: QueuedJob, ask: Ask, nodes: NodeLedger, quotas: QuotaLedger, evictables: Evictables
) -> list[RunningJob]:
    """Return the jobs that must stop for `job` to start; empty if no victims make that possible.

    Args:
        job: A job that fits neither now nor once everything that is stopping has stopped.
        ask: What it asks of the ledgers.
        nodes: The nodes' ledger.
        quotas: The quotas' ledger.
        evictables: Whom to ask.
    """

    def is_enough(below: int) -> bool:
        freed_quota = evictables.quota_below(below, job.queue) if job.queue in quotas.queues else 0
        if quotas.num_soon(job.queue, ask, freed_quota) < job.num_workers_min:
            return False
        free = nodes.limited(nodes.soon + evictables.freed_below(below), ask)
        return int(nodes.slots(free, ask).sum()) >= job.num_workers_min

    candidates = evictables.jobs_below(job.priority)
    if not candidates or not is_enough(job.priority):
        return []
    levels = sorted({victim.priority for victim in candidates})
    level = levels[bisect_left(levels, x=True, key=lambda level: is_enough(level + 1))]
    search = _Search(job, ask, nodes, quotas, evictables.jobs_below(level + 1))
    return search.run()


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Jobs that together make room for `gain` more workers."""

    victims: tuple[RunningJob, ...]
    gain: int

    def rank(self, deficit: int) -> tuple[float, int, float, float, str]:
        """Return its place among the bundles: fewest victims a worker, then the cheapest."""
        ranks = [_rank(victim) for victim in self.victims]
        return (
            len(ranks) / min(self.gain, deficit),
            max(rank[0] for rank in ranks),
            sum(rank[1] for rank in ranks),
            max(rank[2] for rank in ranks),
            ranks[0][3],
        )


class _Search:
    """The greedy search for victims among candidates that are known to be enough."""

    def __init__(
        self,
        job: QueuedJob,
        ask: Ask,
        nodes: NodeLedger,
        quotas: QuotaLedger,
        candidates: Sequence[RunningJob],
    ) -> None:
        self.needed = job.num_workers_min
        self.left = {victim.job_id: victim for victim in candidates}
        self.chosen: list[RunningJob] = []
        self.room = _Room(ask, nodes)
        self.queue = job.queue
        self.quota_missing = quotas.missing(job.queue, ask, self.needed)
        self.held = {victim.job_id: held_by(victim, nodes) for victim in candidates}

    def run(self) -> list[RunningJob]:
        self._free_quota()
        while self.room.num_workers < self.needed:
            if not self._free_nodes():
                return []
        self._spare_the_unneeded()
        return self.chosen

    def _evict(self, victims: Sequence[RunningJob]) -> None:
        for victim in victims:
            del self.left[victim.job_id]
            self.chosen.append(victim)
            self.room.change(self.held[victim.job_id], 1)
            if victim.queue == self.queue:
                self.quota_missing -= to_units(victim.gpus)

    def _free_quota(self) -> None:
        while self.quota_missing > 0:
            same = [v for v in self.left.values() if v.queue == self.queue and v.gpus > 0]
            missing = self.quota_missing
            self._evict([min(same, key=lambda v: (1 / min(to_units(v.gpus), missing), *_rank(v)))])

    def _free_nodes(self) -> bool:
        """Take the best bundles that don't touch each other; say whether there was one."""
        deficit = self.needed - self.room.num_workers
        bundles = sorted(self._bundles(deficit), key=lambda bundle: bundle.rank(deficit))
        touched: set[int] = set()
        for bundle in bundles:
            lies_on = {held[0] for v in bundle.victims for held in self.held[v.job_id]}
            missing = self.needed - self.room.num_workers
            if missing <= 0 or (touched and bundle.gain > missing):
                break  # what is missing is less now, so the bundles rank differently
            if touched.isdisjoint(lies_on):
                self._evict(bundle.victims)
                touched |= lies_on
        return bool(touched)

    def _bundles(self, deficit: int) -> Iterator[_Bundle]:
        on_node: dict[int, list[tuple[int, Rank, RunningJob]]] = defaultdict(list)
        for victim in self.left.values():
            gain = self.room.gain(self.held[victim.job_id])
            if gain > 0:
                yield _Bundle((victim,), gain)
            for node, cpus, gpus, _ in self.held[victim.job_id]:
                size = gpus if self.room.asks_for_gpus else cpus
                on_node[node].append((-size, _rank(victim), victim))
        for entries in on_node.values():
            victims = [victim for _, _, victim in sorted(entries, key=lambda entry: entry[:2])]
            yield from self._joint_bundles(victims, deficit)

    def _joint_bundles(self, victims: Sequence[RunningJob], deficit: int) -> Iterator[_Bundle]:
        """Yield the bundles of two or more jobs of one node, the largest first."""
        gain = 0
        bundles: list[_Bundle] = []
        evicted = 0
        for victim in victims:
            more = self.room.change(self.held[victim.job_id], 1)
            evicted += 1
            gain += more
            if more > 0 and evicted > 1:
                bundles.append(_Bundle(tuple(victims[:evicted]), gain))
            if gain >= deficit:
                break
        for victim in victims[:evicted]:
            self.room.change(self.held[victim.job_id], -1)
        return iter(bundles)

    def _spare_the_unneeded(self) -> None:
        for victim in sorted(self.chosen, key=_rank, reverse=True):
            quota = to_units(victim.gpus) if victim.queue == self.queue else 0
            self.room.change(self.held[victim.job_id], -1)
            if self.room.num_workers >= self.needed and self.quota_missing + quota <= 0:
                self.quota_missing += quota
                self.chosen.remove(victim)
            else:
                self.room.change(self.held[victim.job_id], 1)


class _Room:
    """How many workers fit, as victims come and go."""

    def __init__(self, ask: Ask, nodes: NodeLedger) -> None:
        self._worker = ask.worker
        self._soon = nodes.soon.tolist()
        is_limited = nodes.beside is not None and not ask.passes_nodes
        limit = nodes.beside if is_limited and nodes.beside is not None else None
        self._limit = None if limit is None else limit.tolist()
        self._avoided = {nodes.index[n] for n in ask.avoided if n in nodes.index}
        self._slots = nodes.slots(nodes.free_soon(ask), ask).tolist()
        self.num_workers: int = sum(self._slots)

    @property
    def asks_for_gpus(self) -> bool:
        return self._worker[1] > 0

    def gain(self, held: Sequence[Held]) -> int:
        """Return how many more workers would fit without what is held."""
        gain = self.change(held, 1)
        self.change(held, -1)
        return gain

    def change(self, held: Sequence[Held], sign: int) -> int:
        """Free what is held (sign 1) or take it back (-1); return the change in workers."""
        before = self.num_workers
        for node, cpus, gpus, memory in held:
            free = self._soon[node]
            free[0] += sign * cpus
            free[1] += sign * gpus
            free[2] += sign * memory
            slots = self._slots_on(node)
            self.num_workers += slots - self._slots[node]
            self._slots[node] = slots
        return self.num_workers - before

    def _slots_on(self, node: int) -> int:
        if node in self._avoided:
            return 0
        free_cpus, free_gpus, free_memory = (
            free if self._limit is None else min(free, self._limit[node][column])
            for column, free in enumerate(self._soon[node])
        )
        cpus, gpus, memory = self._worker
        slots = [free_cpus // cpus] if cpus else []
        slots += [gpu_slots(free_gpus, gpus)] if gpus else []
        slots += [free_memory // memory] if memory else []
        return max(min(slots), 0) if slots else 0


def _rank(victim: RunningJob) -> Rank:
    """Return whom to ask first: the lowest priority, the least to lose, the last to come."""
    return (
        victim.priority,
        victim.progress_since_checkpoint_s,
        -victim.submitted_at,
        victim.job_id,
    )
