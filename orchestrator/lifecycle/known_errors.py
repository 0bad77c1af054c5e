"""The table of known errors: what each class of ours, Python's, Ray's, torch's and S3's stands for.

What the system does (Ray, the network between workers, a disk, the store) is another attempt's to
cure and has a budget; what the user's settings, data or code do is not. Libraries that this module
must not load are known by the names of their classes; tests look whether these exist, and whether
the table has a row for every class that Ray has.
"""

import errno
from collections.abc import Mapping
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
    StoreError,
    StoreRefusedError,
    WorkersLostError,
)
from orchestrator.lifecycle.state import Reason

_R = Reason


@dataclass(frozen=True)
class Cause:
    """What one class of errors stands for.

    Attributes:
        reason: Why the attempt ended.
        is_echo: Whether it only says that another rank is gone, and explains nothing by itself.
        blames_node: Whether the node of the rank that met it may be at fault.
    """

    reason: Reason
    is_echo: bool = False
    blames_node: bool = False


_LOST = Cause(_R.WORKER_LOST, blames_node=True)
_UNPLACED = Cause(_R.WORKER_LOST)
_NODE = Cause(_R.NODE_LOST, blames_node=True)
_MEMORY = Cause(_R.OUT_OF_MEMORY, blames_node=True)
SYSTEM = Cause(_R.SYSTEM_ERROR)
_MACHINE = Cause(_R.SYSTEM_ERROR, blames_node=True)
_STORE = Cause(_R.STORAGE_UNAVAILABLE)
_INPUT = Cause(_R.BAD_INPUT)
CODE = Cause(_R.USER_CODE)
_ECHO = Cause(_R.WORKER_LOST, is_echo=True)

# Ours and Python's, in this order: the first class that fits decides.
BY_CLASS: tuple[tuple[type[BaseException], Cause], ...] = (
    (NonFiniteLossError, Cause(_R.DIVERGED)),
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
    (OrchestratorError, SYSTEM),  # Ray's Jobs API, MLflow, folders of this machine, leases
    (MemoryError, _MEMORY),
    (ConnectionError, SYSTEM),
    (TimeoutError, SYSTEM),
)

# What the machine has too little of, or lost; other errors of files are the code's.
BY_ERRNO: Mapping[int | None, Cause] = {
    errno.ENOMEM: _MEMORY,
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV), _MACHINE
    ),
    **dict.fromkeys(
        (
            *(errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EADDRINUSE, errno.EADDRNOTAVAIL),
            *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        ),
        SYSTEM,
    ),
}

# Wrap what happened: what they hold decides. By the package that a class is from, and its name.
WRAPPERS = frozenset(
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
INSIDE = ("cause", "controller_failure", "health_check_failure", "_base_exc", "__cause__")

BY_NAME: Mapping[str, Mapping[str, Cause]] = {
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
            SYSTEM,
        ),
        # What was raised is known no more: a class that cannot be unpickled, of another language.
        **dict.fromkeys(
            ("UnserializableException", "CrossLanguageError", "SessionMisuseError"), CODE
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
    "urllib3": {"HTTPError": SYSTEM},
    "requests": {"RequestException": SYSTEM},
    "grpc": {"RpcError": SYSTEM},
    "socket": {"gaierror": SYSTEM, "herror": SYSTEM},
}

# How libraries say it for which torch has no class on every path.
BY_WORDS: tuple[tuple[tuple[str, ...], Cause], ...] = (
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
EXPLAINS = (
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
