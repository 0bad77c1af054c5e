"""Setting a worker's process up for what was decided about how its job computes."""

import os
from pathlib import Path

from ddpm.amx.library import load_kernels
from ddpm.compute import ComputeDecision
from orchestrator.local_cache import cache_folder


def set_up_process(compute: ComputeDecision) -> None:
    """Apply a decision to this process, before it computes anything.

    Args:
        compute: What was decided. AMX kernels come from this machine's cache. On a GPU cuBLAS is
            told to give the same bits each time, which it reads from the environment when it is
            first used. A node's own setting does not count: torch refuses to multiply with most,
            and others give other bits.
    """
    if compute.device_kind == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if compute.kernels == "amx":
        load_kernels(kernel_folder())
    compute.apply_to_process()


def kernel_folder() -> Path:
    """Return where this machine keeps its compiled kernels."""
    return cache_folder("kernels")
