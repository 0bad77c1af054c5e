"""Which nodes a gang of equal workers goes to.

Amounts are arrays of shape (num_nodes, 3), int64: CPUs, GPUs and GB in ten-thousandths, the step
in which Ray counts, so that nothing is lost to rounding.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from orchestrator.scheduling.requests import JobRequest

IntArray = npt.NDArray[np.int64]
Worker = tuple[int, int, int]
Placed = list[tuple[int, int]]

UNITS = 10_000
MANY = 1 << 30
_PRIMARY = 1 << 40


def to_units(amount: float) -> int:
    """Return a number of CPUs, GPUs or GB in ten-thousandths."""
    return round(amount * UNITS)


def worker_of(job: JobRequest) -> Worker:
    """Return the CPUs, GPUs and GB of one worker of a job, in ten-thousandths."""
    return (
        to_units(job.cpus_per_worker),
        to_units(job.gpus_per_worker),
        to_units(job.memory_gb_per_worker),
    )


Amount = TypeVar("Amount", int, IntArray)


def gpu_slots(free: Amount, asked: int) -> Amount:
    """Return how many workers' GPUs fit: a part of a GPU comes from one, not from two remainders.

    What several jobs have left over of different GPUs is counted as one remainder.

    Args:
        free: Free GPUs in ten-thousandths: one number, or (num_nodes,) int64.
        asked: What one worker needs, above 0.
    """
    if asked >= UNITS:
        return free // asked
    return free // UNITS * (UNITS // asked) + free % UNITS // asked


def worker_slots(free: IntArray, worker: Worker) -> IntArray:
    """Return how many workers fit on each node.

    Args:
        free: (num_nodes, 3), what may be used.
        worker: What one worker needs.

    Returns:
        (num_nodes,) int64, at least 0.
    """
    slots = np.full(len(free), MANY, dtype=np.int64)
    cpus, gpus, memory = worker
    if cpus > 0:
        np.minimum(slots, free[:, 0] // cpus, out=slots)
    if gpus > 0:
        np.minimum(slots, gpu_slots(free[:, 1], gpus), out=slots)
    if memory > 0:
        np.minimum(slots, free[:, 2] // memory, out=slots)
    return np.maximum(slots, 0, out=slots)


def place(free: IntArray, slots: IntArray, num_workers: int, worker: Worker) -> Placed:
    """Choose nodes for num_workers workers, of which there must be room for all.

    One node if one can hold them all: the fullest of these. Else the emptiest nodes, so that the
    gang lies on few, and the fullest that can take what is left over. Workers without GPUs go
    where the fewest GPUs are free.

    Args:
        free: (num_nodes, 3), what may be used.
        slots: (num_nodes,), `worker_slots` of it, 0 where the job may not go.
        num_workers: Workers to place.
        worker: What one of them needs.

    Returns:
        Pairs of node index and number of workers.
    """
    primary = _PRIMARY * free[:, 1] if worker[1] == 0 else np.zeros_like(slots)
    slots = slots.copy()
    order = np.argsort(primary - slots, kind="stable")
    emptiest_first = order[slots[order] > 0].tolist()
    placed: Placed = []
    left = num_workers
    for node in emptiest_first:
        if left <= 0:
            break
        can_end = slots >= left
        if can_end.any():
            last = int(np.argmin(np.where(can_end, primary + slots, np.iinfo(np.int64).max)))
            placed.append((last, left))
            break
        placed.append((node, int(slots[node])))
        left -= int(slots[node])
        slots[node] = 0
    return placed
