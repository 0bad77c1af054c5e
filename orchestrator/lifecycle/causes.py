"""Which reason an error stands for: one table over our errors, Python's, Ray's, torch's and S3's.

What the system does (Ray, the network between workers, a disk, the store) is another attempt's to
cure and has a budget; what the user's settings, data or code do is not. Libraries that this module
must not load are known by the names of their classes; tests look whether these exist, and whether
the table has a row for every class that Ray has.
"""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ddpm.config import ConfigError
from ddpm.errors import (
    CheckpointFormatError,
    ForeignModelError,
    ImageDatasetError,
    KernelError,
    NonFiniteLossError,
)
from orchestrator.errors import (
    BadInputError,
    CheckpointError,
    CredentialsExpiredError,
    JobNotFoundError,
    OrchestratorError,
    ShardDamagedError,
    SmokeTestError,
    StoreError,
    StoreRefusedError,
    WorkersLostError,
)
from orchestrator.lifecycle.state import Reason

_R = Reason


@dataclass(frozen=True)
class _Cause:
    """What one class of errors stands for.

    Attributes:
        reason: Why the attempt ended.
        is_echo: Whether it only tells that another rank is gone, and explains nothing by itself.
        blames_node: Whether the node of the rank that met it may be at fault.
    """

    reason: Reason
    is_echo: bool = False
    blames_node: bool = False


_LOST = _Cause(_R.WORKER_LOST, blames_node=True)
_UNPLACED = _Cause(_R.WORKER_LOST)
_NODE = _Cause(_R.NODE_LOST, blames_node=True)
_MEMORY = _Cause(_R.OUT_OF_MEMORY, blames_node=True)
_SYSTEM = _Cause(_R.SYSTEM_ERROR)
_MACHINE = _Cause(_R.SYSTEM_ERROR, blames_node=True)
_STORE = _Cause(_R.STORAGE_UNAVAILABLE)
_INPUT = _Cause(_R.BAD_INPUT)
_CODE = _Cause(_R.USER_CODE)
_ECHO = _Cause(_R.WORKER_LOST, is_echo=True)

# Ours and Python's, in this order: the first class that fits decides.
_BY_CLASS: tuple[tuple[type[BaseException], _Cause], ...] = (
    (NonFiniteLossError, _Cause(_R.DIVERGED)),
    (CheckpointFormatError, _INPUT),
    (ImageDatasetError, _INPUT),
    (ForeignModelError, _INPUT),
    (ConfigError, _INPUT),
    (KernelError, _MACHINE),
    (BadInputError, _INPUT),
    (JobNotFoundError, _INPUT),
    (CheckpointError, _INPUT),
    (ShardDamagedError, _INPUT),
    (StoreRefusedError, _INPUT),
    (CredentialsExpiredError, _STORE),
    (StoreError, _STORE),
    (WorkersLostError, _UNPLACED),
    (OrchestratorError, _SYSTEM),  # Ray's Jobs API, MLflow, folders of this machine, leases
    (MemoryError, _MEMORY),
    (ConnectionError, _SYSTEM),
    (TimeoutError, _SYSTEM),
)

# What the machine has too little of, or lost; other errors of files are the code's.
_ERRNOS: Mapping[int | None, _Cause] = {
    errno.ENOMEM: _MEMORY,
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV), _MACHINE
    ),
    **dict.fromkeys(
        (
            *(errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EADDRINUSE, errno.EADDRNOTAVAIL),
            *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        ),
        _SYSTEM,
    ),
}

# Wrap what happened: what they hold decides. By the package that a class is from, and its name.
_WRAPPERS = frozenset(
    {
        ("ray", "RayTaskError"),
        ("ray", "UserCodeException"),
        ("ray", "TrainingFailedError"),
        ("ray", "WorkerGroupError"),
        ("ray", "ControllerError"),
        ("ray", "UserExceptionWithTraceback"),
        ("builtins", "BaseExceptionGroup"),
    }
)
_INSIDE = ("cause", "controller_failure", "health_check_failure", "_base_exc", "__cause__")

_BY_NAME: Mapping[str, Mapping[str, _Cause]] = {
    "ray": {
        **dict.fromkeys(
            (
                *("WorkerCrashedError", "RayActorError", "ActorDiedError", "ActorUnavailableError"),
                *("WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError"),
                "NCCLHangError",
            ),
            _LOST,
        ),
        **dict.fromkeys(
            (
                *("OwnerDiedError", "TaskCancelledError", "AsyncioActorExit"),
                *("TaskPlacementGroupRemoved", "ActorPlacementGroupRemoved"),
                *("TaskUnschedulableError", "ActorUnschedulableError"),
                # A node that is gone, but not yet known to be.
                *("WorkerGroupStartupFailedError", "WorkerGroupStartupTimeoutError"),
                "InsufficientClusterResourcesError",
                *("CollectiveTimeoutError", "BroadcastCollectiveTimeoutError"),
            ),
            _UNPLACED,
        ),
        **dict.fromkeys(("NodeDiedError", "LocalRayletDiedError", "PreemptionError"), _NODE),
        **dict.fromkeys(("OutOfMemoryError", "ObjectStoreFullError"), _MEMORY),
        **dict.fromkeys(("OutOfDiskError", "RuntimeEnvSetupError"), _MACHINE),
        **dict.fromkeys(
            (
                *("RaySystemError", "RpcError", "GetTimeoutError", "AuthenticationError"),
                *("ObjectLostError", "ObjectFetchTimedOutError", "ReferenceCountingAssertionError"),
                *("ObjectFreedError", "ObjectReconstructionFailedError"),
                *("PlasmaObjectNotAvailable", "PendingCallsLimitExceeded"),
                *("ObjectRefStreamEndOfStreamError", "StreamingGeneratorReplayInconsistentError"),
                *("OufOfBandObjectRefSerializationException", "RayChannelError"),
                *("RayChannelTimeoutError", "RayCgraphCapacityExceeded", "RayDirectTransportError"),
                *("ActorAlreadyExistsError", "ActorHandleNotFoundError"),
                "CheckpointManagerInitializationError",
                # Whatever a later Ray brings.
                *("RayError", "RayTrainError"),
            ),
            _SYSTEM,
        ),
        # What was raised is known no more: a class that cannot be unpickled, of another language.
        **dict.fromkeys(
            ("UnserializableException", "CrossLanguageError", "SessionMisuseError"), _CODE
        ),
    },
    "torch": {
        "OutOfMemoryError": _MEMORY,
        **dict.fromkeys(
            ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError"), _ECHO
        ),
    },
    "botocore": {
        **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError"), _INPUT),
        **dict.fromkeys(("BotoCoreError", "ClientError"), _STORE),
    },
    "boto3": {"Boto3Error": _STORE},
    "urllib3": {"HTTPError": _SYSTEM},
    "requests": {"RequestException": _SYSTEM},
    "grpc": {"RpcError": _SYSTEM},
    "socket": {"gaierror": _SYSTEM, "herror": _SYSTEM},
}

# How libraries say it for which torch has no class on every path.
_BY_WORDS: tuple[tuple[tuple[str, ...], _Cause], ...] = (
    (("cuda error: out of memory", "cublas_status_alloc_failed", "enforce fail at alloc"), _MEMORY),
    (
        ("gloo", "nccl", "connection closed by peer", "connection reset by peer"),
        _ECHO,
    ),
    (
        (
            *("uncorrectable ecc", "fallen off the bus", "cuda unknown error"),
            *("cuda error: unknown error", "no cuda-capable device", "cuda driver initialization"),
            *("cuda error: all cuda-capable devices are busy", "cuda error: hardware"),
            "no space left on device",
        ),
        _MACHINE,
    ),
)

# Of several failures the first of these explains the others: a worker that diverged makes its
# neighbours lose their connection, not the other way round. A class of the library's that is
# known says more than an error of the code's, which may be what a lost neighbour looks like.
_EXPLAINS = (
    _R.DIVERGED,
    _R.BAD_INPUT,
    _R.OUT_OF_MEMORY,
    _R.NODE_LOST,
    _R.STORAGE_UNAVAILABLE,
    _R.WORKER_LOST,
    _R.DRIVER_LOST,
    _R.CLUSTER_LOST,
    _R.SYSTEM_ERROR,
    _R.USER_CODE,
)


def reason_of(error: BaseException) -> Reason:
    """Return the reason that an error stands for, looking through what Ray wraps it in."""
    return _explaining(error)[0].reason


def failed_ranks(error: BaseException) -> tuple[int, ...]:
    """Return the ranks whose node may be at fault, not those that only lost a neighbour.

    Ray Train's error holds one failure for each rank that had one.
    """
    failures: dict[int, BaseException] = {}
    for one in _chain(error):
        failures.update(_worker_failures(one))
    return tuple(sorted(rank for rank, e in failures.items() if _explaining(e)[0].blames_node))


def headline(error: BaseException) -> str:
    """Return the line that tells most of what went wrong, without what Ray wraps it in."""
    root = _explaining(error)[1]
    lines = [line.strip() for line in str(root).strip().splitlines() if line.strip()]
    text = lines[-1] if lines else type(root).__name__
    if lines and not isinstance(root, OrchestratorError):
        text = f"{type(root).__name__}: {text}"
    return text if len(text) <= 500 else f"{text[:497]}..."


def unwrapped(error: BaseException) -> BaseException:
    """Return what an actor raised, without the doubles in which Ray hands it out."""
    while _is_wrapper(error) and isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


@contextmanager
def raising_causes() -> Iterator[None]:
    """Raise, of what goes wrong inside, the error that explains it: Ray carries no `__cause__`."""
    try:
        yield
    except Exception as error:
        root = _explaining(error)[1]
        if root is error:
            raise
        raise root from error


def _explaining(error: BaseException) -> tuple[_Cause, BaseException]:
    """Return the cause that explains an error best, and the error that stands for it."""
    stories = [_story(failure) for failure in _failures(error)]
    if not stories:  # a wrapper around nothing: whoever made it is the system
        return _SYSTEM, error
    return min(stories, key=lambda story: _rank(story[0]))


def _rank(cause: _Cause) -> tuple[bool, int]:
    return cause.is_echo, _EXPLAINS.index(cause.reason)


def _failures(error: BaseException) -> Iterator[BaseException]:
    """Yield the failures that an error holds, each the outermost one that is no wrapper."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        if not _is_wrapper(current) or _cause_by_name(current) is not None:
            yield current
        if _is_wrapper(current):
            waiting += _held(current)


def _story(failure: BaseException) -> tuple[_Cause, BaseException]:
    """Return what one failure stands for: what is known of it or of what it was raised from."""
    known = [(cause, one) for one in _chain(failure) if (cause := _own_cause(one)) is not None]
    return min(known, key=lambda story: _rank(story[0]), default=(_CODE, failure))


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it holds: causes, and the failures of single workers."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if not any(current is one for one in found):
            found.append(current)
            waiting += _held(current)
    return found


def _held(error: BaseException) -> list[BaseException]:
    group = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    inside = (getattr(error, name, None) for name in _INSIDE)
    return [
        one
        for one in (*_worker_failures(error).values(), *group, *inside)
        if isinstance(one, BaseException)
    ]


def _worker_failures(error: BaseException) -> dict[int, BaseException]:
    found = getattr(error, "worker_failures", None)
    return found if isinstance(found, dict) else {}


def _is_wrapper(error: BaseException) -> bool:
    return bool(_worker_failures(error)) or not _WRAPPERS.isdisjoint(_names(error))


def _names(error: BaseException) -> list[tuple[str, str]]:
    """Return the package and the name of an error's classes, the nearest one first."""
    return [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(error).__mro__]


def _own_cause(error: BaseException) -> _Cause | None:
    """Return what an error stands for by itself, or None if nothing is known of its class."""
    if _is_wrapper(error):
        return _cause_by_name(error)
    if isinstance(error, SmokeTestError):
        return _Cause(Reason(error.reason))
    for kind, cause in _BY_CLASS:
        if isinstance(error, kind):
            return cause
    return _cause_by_name(error) or _cause_of_system(error) or _cause_by_words(error)


def _cause_by_name(error: BaseException) -> _Cause | None:
    wrapped = _is_wrapper(error)
    for package, name in _names(error):
        if (package, name) in _WRAPPERS or (wrapped and name in ("RayError", "RayTrainError")):
            continue
        cause = _BY_NAME.get(package, {}).get(name)
        if cause is not None:
            return cause
    return None


def _cause_of_system(error: BaseException) -> _Cause | None:
    return _ERRNOS.get(error.errno) if isinstance(error, OSError) else None


def _cause_by_words(error: BaseException) -> _Cause | None:
    if not isinstance(error, RuntimeError):
        return None
    said = str(error).lower()
    return next((cause for words, cause in _BY_WORDS if any(w in said for w in words)), None)
