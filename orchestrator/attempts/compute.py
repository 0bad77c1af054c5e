"""Setting a worker's process up for what was decided about how its job computes."""

import os
from pathlib import Path

from ddpm.compute import ComputeDecision
from ddpm.kernels.amx.kernels import kernels_obstacle
from orchestrator.cluster.cache import cache_folder
from orchestrator.errors import BadInputError


def set_up_process(compute: ComputeDecision) -> None:
    """Apply a decision to this process, before it computes anything.

    Args:
        compute: What was decided. AMX kernels come from this machine's cache. On a GPU cuBLAS is
            told to give the same bits each time, which it reads from the environment when it is
            first used. A node's own setting does not count: torch refuses to multiply with most,
            and others give other bits.

    Raises:
        BadInputError: This machine cannot compute so.
    """
    if compute.device_kind == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if compute.kernels == "amx":
        obstacle = kernels_obstacle(kernel_folder())
        if obstacle is not None:
            raise BadInputError(f"the job was begun with AMX kernels, but {obstacle} here")
    compute.apply_to_process()


def kernel_folder() -> Path:
    """Return where this machine keeps its compiled kernels."""
    return cache_folder("kernels")


def threads_of(cpus: int) -> int:
    """Return the threads for a worker's CPUs, as Ray counts them: no more than can run at once.

    Logical CPUs may be more than a machine has. Threads beyond it wait for each other: a step of a
    small network took three times as long with three of them on two cores as with two.
    """
    return max(1, min(cpus, len(os.sched_getaffinity(0))))
