"""What an attempt comes to, and which reason an error stands for."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from ddpm.config import ConfigError
from orchestrator.errors import (
    BadInputError,
    CheckpointError,
    SmokeTestError,
    StoreError,
    StoreRefusedError,
)
from orchestrator.lifecycle.state import Reason


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a driver says of its attempt.

    Attributes:
        succeeded: Whether the job is done.
        stopped: Whether it ended since it was told to, having saved its work.
        reason: Why it did not succeed.
        message: One line for a reader.
        progress: Steps in the last committed checkpoint, or images in committed shards.
        failed_node_ids: Nodes to blame.
    """

    succeeded: bool = False
    stopped: bool = False
    reason: Reason | None = None
    message: str = ""
    progress: int = 0
    failed_node_ids: tuple[str, ...] = ()


OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)


def reason_of(error: BaseException) -> Reason:
    """Return the reason that an error stands for, looking through what Ray wraps it in.

    Where several workers failed, the one that explains the others wins: a worker that diverged
    makes its neighbours lose their connection, not the other way round.
    """
    reasons = {reason for cause in _chain(error) if (reason := _own_reason(cause)) is not None}
    return next((reason for reason in _EXPLAINS if reason in reasons), Reason.USER_CODE)


def failed_ranks(error: BaseException) -> tuple[int, ...]:
    """Return the ranks whose own failure an error tells of, not those that only lost a neighbour.

    Ray Train's error holds one failure for each rank that had one.
    """
    failures: dict[int, BaseException] = {}
    for cause in _chain(error):
        found = getattr(cause, "worker_failures", None)
        failures.update(found if isinstance(found, dict) else {})
    own = {rank: {type(cause).__name__ for cause in _chain(e)} for rank, e in failures.items()}
    return tuple(sorted(rank for rank, names in own.items() if names & _NODE_MAY_BE_TO_BLAME))


def headline(error: BaseException) -> str:
    """Return the line of an error that tells most: of a wrapped traceback, the last one."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if len(text) <= 500 else f"{text[:497]}..."


_EXPLAINS = (
    Reason.DIVERGED,
    Reason.BAD_INPUT,
    Reason.OUT_OF_MEMORY,
    Reason.NODE_LOST,
    Reason.STORAGE_UNAVAILABLE,
    Reason.WORKER_LOST,
)


def _own_reason(error: BaseException) -> Reason | None:
    by_name = _BY_NAME.get(type(error).__name__)
    if by_name is not None:
        return by_name
    if isinstance(error, SmokeTestError):
        return Reason(error.reason)
    if isinstance(error, BadInputError | ConfigError | StoreRefusedError | CheckpointError):
        return Reason.BAD_INPUT
    if isinstance(error, StoreError):
        return Reason.STORAGE_UNAVAILABLE
    said = str(error) if isinstance(error, RuntimeError) else ""
    if any(words in said for words in _NO_MEMORY_WORDS):
        return Reason.OUT_OF_MEMORY
    return Reason.WORKER_LOST if any(words in said for words in _PEER_WORDS) else None


# How gloo and NCCL say that another rank is gone; torch has no class for it on every path.
_PEER_WORDS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")

# How CUDA and its libraries say that a GPU is full where torch did not ask for the memory itself.
_NO_MEMORY_WORDS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

# Errors of libraries that this module must not import, by the names of their classes.
_BY_NAME = {
    "NonFiniteLossError": Reason.DIVERGED,
    "CheckpointFormatError": Reason.BAD_INPUT,
    "ImageDatasetError": Reason.BAD_INPUT,
    "OutOfMemoryError": Reason.OUT_OF_MEMORY,
    "NodeDiedError": Reason.NODE_LOST,
    "ActorDiedError": Reason.WORKER_LOST,
    "ActorUnavailableError": Reason.WORKER_LOST,
    "ActorUnschedulableError": Reason.WORKER_LOST,
    "RayActorError": Reason.WORKER_LOST,
    "WorkerCrashedError": Reason.WORKER_LOST,
    "OwnerDiedError": Reason.WORKER_LOST,
    "WorkerHealthCheckFailedError": Reason.WORKER_LOST,
    "WorkerHealthCheckTimeoutError": Reason.WORKER_LOST,
    "WorkerGroupStartupFailedError": Reason.WORKER_LOST,
    "WorkerGroupStartupTimeoutError": Reason.WORKER_LOST,  # a node that is gone, but not yet known
    "InsufficientClusterResourcesError": Reason.WORKER_LOST,
    "CollectiveTimeoutError": Reason.WORKER_LOST,
    "BroadcastCollectiveTimeoutError": Reason.WORKER_LOST,
    "PreemptionError": Reason.NODE_LOST,
    "DistBackendError": Reason.WORKER_LOST,
    "DistNetworkError": Reason.WORKER_LOST,
}


# Of a rank that fails with one of these, the node may be to blame; others only met its failure.
_NODE_MAY_BE_TO_BLAME = frozenset(
    {
        "OutOfMemoryError",
        "NodeDiedError",
        "ActorDiedError",
        "ActorUnavailableError",
        "RayActorError",
        "WorkerCrashedError",
        "WorkerHealthCheckFailedError",
        "WorkerHealthCheckTimeoutError",
    }
)


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and all that it wraps: causes, and the failures of single workers."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or current in found:
            continue
        found.append(current)
        failures = getattr(current, "worker_failures", None)
        inner = failures.values() if isinstance(failures, dict) else ()
        waiting += [*inner, getattr(current, "cause", None), current.__cause__]
    return found
