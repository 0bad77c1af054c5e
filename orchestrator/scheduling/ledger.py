"""What may be used: of the nodes and of the quotas, now, soon, and beside a reservation.

Both ledgers keep three balances. `now` is free at this moment. `soon` is free once everything
that is stopping has stopped, less what is held for jobs that wait only for that. `beside` is what
a reservation leaves over at the time when it begins: what a job may use that would still run
then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.placement import (
    MANY,
    IntArray,
    Placed,
    Worker,
    place,
    to_units,
    worker_of,
    worker_slots,
)
from orchestrator.scheduling.requests import QueuedJob, RunningJob

NEVER_PASSED = float("-inf")
"""Begin of a reservation whose time is not known: no job provably ends before it."""


@dataclass(frozen=True)
class Reservation:
    """What is kept for the first in line.

    Attributes:
        job_id: For whom.
        priority: Its priority.
        begins_at: When it can start at the latest; `NEVER_PASSED` if that is not known.
    """

    job_id: str
    priority: int
    begins_at: float

    def lets_pass(self, job: QueuedJob, now: float) -> bool:
        """Return whether a job may use what is reserved: it ends in time, or gives way."""
        if job.max_runtime_s is not None and now + job.max_runtime_s <= self.begins_at:
            return True
        return job.preemptible and job.priority < self.priority


@dataclass(frozen=True, slots=True)
class Ask:
    """What a job asks of the ledgers.

    Attributes:
        worker: CPUs, GPUs and GB of one worker, in ten-thousandths.
        avoided: Nodes that it may not use.
        passes_nodes: Whether it may use reserved capacity.
        passes_quota: Whether it may use reserved quota.
    """

    worker: Worker
    avoided: frozenset[str]
    passes_nodes: bool
    passes_quota: bool


class NodeLedger:
    """The balances of the nodes that stay, in order of their ids; arrays (num_nodes, 3) int64."""

    def __init__(self, nodes: Sequence[NodeCapacity], running: Sequence[RunningJob]) -> None:
        staying = (node for node in nodes if not node.is_draining)
        ordered = sorted(staying, key=lambda node: node.node_id)
        self.node_ids = [node.node_id for node in ordered]
        self.index = {node_id: number for number, node_id in enumerate(self.node_ids)}
        self.nodes = ordered
        self.capacity = _amounts((n.cpus, n.gpus, n.memory_gb) for n in ordered)
        self.now = _amounts((n.free_cpus, n.free_gpus, n.free_memory_gb) for n in ordered)
        self.soon = self.now.copy()
        self.beside: IntArray | None = None
        self.reservation: Reservation | None = None
        self._totals: dict[tuple[str, bool, Worker], int] = {}
        for job in running:
            if job.stopping:
                self.release(job)

    def entries(self, placement: Mapping[str, int]) -> Placed:
        """Return a placement as node indices and workers, without nodes that are gone."""
        return [(self.index[n], workers) for n, workers in placement.items() if n in self.index]

    def release(self, job: RunningJob) -> None:
        """Count what a job holds as free soon."""
        worker = np.array(worker_of(job))
        for node, workers in self.entries(job.placement):
            self.soon[node] += workers * worker
        self._totals.clear()

    def limited(self, free: IntArray, ask: Ask) -> IntArray:
        """Return the part of a balance that an asker may use in view of the reservation."""
        if self.beside is None or ask.passes_nodes:
            return free
        return np.minimum(free, self.beside)

    def free_now(self, ask: Ask) -> IntArray:
        """Return what an asker may use at once."""
        return self.limited(np.minimum(self.now, self.soon), ask)

    def free_soon(self, ask: Ask) -> IntArray:
        """Return what an asker may use once everything that is stopping has stopped."""
        return self.limited(self.soon, ask)

    def slots(self, free: IntArray, ask: Ask) -> IntArray:
        """Return (num_nodes,) int64: the asker's workers that fit on each node."""
        slots = worker_slots(free, ask.worker)
        for node_id in ask.avoided:
            if node_id in self.index:
                slots[self.index[node_id]] = 0
        return slots

    def num_now(self, ask: Ask) -> int:
        """Return how many workers fit at once."""
        return self._total("now", ask)

    def num_soon(self, ask: Ask) -> int:
        """Return how many workers fit once everything that is stopping has stopped."""
        return self._total("soon", ask)

    def num_ever(self, ask: Ask) -> int:
        """Return how many workers fit on the empty cluster."""
        if ask.avoided:
            return int(self.slots(self.capacity, ask).sum())
        return self._total("ever", ask)

    def take_now(self, ask: Ask, num_workers: int) -> dict[str, int]:
        """Use capacity at once; return node id to number of workers."""
        placed = self._take(self.free_now(ask), ask, num_workers)
        for node, workers in placed:
            self.now[node] -= workers * np.array(ask.worker)
        return self._by_id(placed)

    def hold(self, ask: Ask, num_workers: int) -> dict[str, int]:
        """Keep capacity that is free soon; return node id to number of workers."""
        return self._by_id(self._take(self.free_soon(ask), ask, num_workers))

    def reserve(
        self, reservation: Reservation, free_then: IntArray, taken: Placed, ask: Ask
    ) -> None:
        """Make the reservation: what is free when it begins, and what of that is reserved."""
        self.reservation = reservation
        self.beside = free_then.copy()
        for node, workers in taken:
            self.beside[node] -= workers * np.array(ask.worker)
        self._totals.clear()

    def _take(self, free: IntArray, ask: Ask, num_workers: int) -> Placed:
        placed = place(free, self.slots(free, ask), num_workers, ask.worker)
        worker = np.array(ask.worker)
        for node, workers in placed:
            self.soon[node] -= workers * worker
            if self.beside is not None and not ask.passes_nodes:
                self.beside[node] -= workers * worker
        self._totals.clear()
        return placed

    def _by_id(self, placed: Placed) -> dict[str, int]:
        return {self.node_ids[node]: workers for node, workers in placed}

    def _total(self, balance: str, ask: Ask) -> int:
        key = (balance, ask.passes_nodes, ask.worker)
        if not ask.avoided and key in self._totals:
            return self._totals[key]
        free = {"now": self.free_now, "soon": self.free_soon}.get(balance)
        amounts = self.capacity if free is None else free(ask)
        total = int(self.slots(amounts, ask).sum())
        if not ask.avoided:
            self._totals[key] = total
        return total


@dataclass(slots=True)
class _QuotaBalance:
    limit: int
    now: int
    soon: int
    beside: int | None = None
    reservation: Reservation | None = None


class QuotaLedger:
    """The balances of the queues that have a quota, in ten-thousandths of a GPU."""

    def __init__(self, quotas: Mapping[str, float], running: Sequence[RunningJob]) -> None:
        self.queues = frozenset(quotas)
        self._balances: dict[str, _QuotaBalance] = {}
        for queue, gpus in quotas.items():
            limit = to_units(gpus)
            self._balances[queue] = _QuotaBalance(limit, limit, limit)
        for job in running:
            if job.queue in self._balances:
                balance = self._balances[job.queue]
                used = to_units(job.gpus)
                balance.now -= used
                balance.soon -= 0 if job.stopping else used

    def reservation(self, queue: str) -> Reservation | None:
        """Return for whom the rest of a queue's quota is kept."""
        balance = self._balances.get(queue)
        return None if balance is None else balance.reservation

    def num_now(self, queue: str, ask: Ask) -> int:
        """Return how many workers the quota allows at once."""
        return self._num(queue, ask, 0, is_now=True)

    def num_soon(self, queue: str, ask: Ask, freed: int = 0) -> int:
        """Return how many it allows once what is stopping has stopped and `freed` is given back."""
        return self._num(queue, ask, freed, is_now=False)

    def num_ever(self, queue: str, ask: Ask) -> int:
        """Return how many it allows while nothing of the queue runs."""
        if queue not in self._balances or ask.worker[1] == 0:
            return MANY
        return self._balances[queue].limit // ask.worker[1]

    def missing(self, queue: str, ask: Ask, num_workers: int) -> int:
        """Return what the queue's jobs must give back for so many workers, at least 0."""
        if queue not in self._balances or ask.worker[1] == 0:
            return 0
        return max(num_workers * ask.worker[1] - self._balances[queue].soon, 0)

    def take(self, queue: str, ask: Ask, num_workers: int, *, is_now: bool) -> None:
        """Use quota, at once or soon."""
        balance = self._balances.get(queue)
        if balance is None:
            return
        amount = num_workers * ask.worker[1]
        balance.soon -= amount
        balance.now -= amount if is_now else 0
        if balance.beside is not None and not ask.passes_quota:
            balance.beside -= amount

    def release(self, job: RunningJob) -> None:
        """Count what a job holds as free soon."""
        if job.queue in self._balances:
            self._balances[job.queue].soon += to_units(job.gpus)

    def reserve(
        self, queue: str, reservation: Reservation, ask: Ask, workers: int, freed: int
    ) -> None:
        """Keep quota for a job; `freed` is given back until the reservation begins."""
        balance = self._balances.get(queue)
        if balance is not None and balance.reservation is None:
            balance.reservation = reservation
            balance.beside = balance.soon + freed - workers * ask.worker[1]

    def _num(self, queue: str, ask: Ask, freed: int, *, is_now: bool) -> int:
        balance = self._balances.get(queue)
        if balance is None or ask.worker[1] == 0:
            return MANY
        free = min(balance.now, balance.soon) if is_now else balance.soon + freed
        if balance.beside is not None and not ask.passes_quota:
            free = min(free, balance.beside)
        return max(free // ask.worker[1], 0)


def _amounts(amounts: Iterable[tuple[float, float, float]]) -> IntArray:
    units = [tuple(map(to_units, amount)) for amount in amounts]
    return np.array(units, dtype=np.int64).reshape(-1, 3)
