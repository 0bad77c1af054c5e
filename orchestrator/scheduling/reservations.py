"""When the first in line can start, if what runs ends when it must, and what is kept for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.scheduling.ledger import NEVER_PASSED, Ask, NodeLedger, QuotaLedger, Reservation
from orchestrator.scheduling.placement import IntArray, place, to_units
from orchestrator.scheduling.preemption import Evictables, held_by
from orchestrator.scheduling.requests import QueuedJob, RunningJob


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of a decision, and the jobs whose ends it can count on.

    Attributes:
        now: Seconds since the epoch.
        running: All jobs that hold capacity, in order of their latest ends; those without one
            come last, the oldest first.
    """

    now: float
    running: Sequence[RunningJob]

    def end_of(self, job: RunningJob) -> float:
        """Return when a job ends at the latest; infinity if that is not known."""
        latest = job.latest_end_at
        return math.inf if latest is None else max(latest, self.now)


def clock_of(running: Sequence[RunningJob], now: float) -> Clock:
    """Put the running jobs in the order of their ends."""

    def end_key(job: RunningJob) -> tuple[float, float, str]:
        latest = job.latest_end_at
        return (math.inf if latest is None else max(latest, now), job.started_at, job.job_id)

    return Clock(now, sorted(running, key=end_key))


def reserve_nodes(
    job: QueuedJob, ask: Ask, nodes: NodeLedger, evictables: Evictables, clock: Clock
) -> Reservation:
    """Reserve capacity from the earliest time at which the job fits; return the reservation.

    What it could evict counts as free: such jobs make room when the time comes. If it does not
    fit even when all that runs has ended, somebody else holds the nodes; then it gets the first
    that come free of the whole cluster, whenever that is.
    """
    ending = [
        running
        for running in clock.running
        if not running.stopping and not (running.preemptible and running.priority < job.priority)
    ]
    free = nodes.soon + evictables.freed_below(job.priority)
    num_ended, free_then = _first_fit(job, ask, nodes, ending, free)
    if free_then is None:
        begins_at, free_then = math.inf, nodes.capacity
    else:
        begins_at = clock.end_of(ending[num_ended - 1]) if num_ended else clock.now
    placed = place(free_then, nodes.slots(free_then, ask), job.num_workers_min, ask.worker)
    known = begins_at if math.isfinite(begins_at) else NEVER_PASSED
    reservation = Reservation(job.job_id, job.priority, known)
    nodes.reserve(reservation, free_then, placed, ask)
    return reservation


def reserve_quota(
    job: QueuedJob, ask: Ask, quotas: QuotaLedger, evictables: Evictables, clock: Clock
) -> None:
    """Keep a queue's quota for the first of its jobs that waits for nothing else."""
    freed = evictables.quota_below(job.priority, job.queue)
    begins_at = clock.now
    for running in clock.running:
        if quotas.num_soon(job.queue, ask, freed) >= job.num_workers_min:
            break
        is_counted = running.stopping or (running.preemptible and running.priority < job.priority)
        if running.queue == job.queue and not is_counted:
            freed += to_units(running.gpus)
            begins_at = clock.end_of(running)
    known = begins_at if math.isfinite(begins_at) else NEVER_PASSED
    reservation = Reservation(job.job_id, job.priority, known)
    quotas.reserve(job.queue, reservation, ask, job.num_workers_min, freed)


def _first_fit(
    job: QueuedJob, ask: Ask, nodes: NodeLedger, ending: Sequence[RunningJob], free: IntArray
) -> tuple[int, IntArray | None]:
    """Return how many of `ending` must end for the job to fit, and what is free then.

    What is free is (num_nodes, 3) int64; None if the job does not fit when all have ended.
    """
    entries = [
        (number, *held) for number, running in enumerate(ending) for held in held_by(running, nodes)
    ]
    table = np.array(entries, dtype=np.int64).reshape(-1, 5)

    def free_after(num_ended: int) -> IntArray:
        ended = table[: np.searchsorted(table[:, 0], num_ended)]
        amounts = free.copy()
        np.add.at(amounts, ended[:, 1], ended[:, 2:])
        return amounts

    def fits(num_ended: int) -> bool:
        return int(nodes.slots(free_after(num_ended), ask).sum()) >= job.num_workers_min

    low, high = 0, len(ending)
    if not fits(high):
        return high, None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low, free_after(low)
