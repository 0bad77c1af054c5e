"""Which reason an error stands for: the system's faults are tried again, the user's are not."""

import copy
import errno
import importlib
import inspect

import pytest
import ray.exceptions
import torch
from ray.exceptions import ActorDiedError, RayError, RayTaskError, WorkerCrashedError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
)
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from ddpm.config import ConfigError
from ddpm.errors import CheckpointFormatError, ImageDatasetError, KernelError, NonFiniteLossError
from orchestrator.errors import (
    BadInputError,
    CredentialsExpiredError,
    OrchestratorError,
    RayUnavailableError,
    SmokeTestError,
    StoreRefusedError,
    StoreUnavailableError,
)
from orchestrator.lifecycle.causes import (
    failed_ranks,
    headline,
    own_cause,
    reason_of,
    unwrapped,
)
from orchestrator.lifecycle.known_errors import BY_NAME, EXPLAINS, WRAPPERS
from orchestrator.lifecycle.retry import BUDGETS, ENDS_NO_ATTEMPT, FINAL_MESSAGES, GAVE_WAY
from orchestrator.lifecycle.state import Reason
from orchestrator.lifecycle.steps import LIMITS
from tests.support.errors import example_of, our_error_classes

HOMES = {
    "ray": (
        *("ray.exceptions", "ray.train.error", "ray.train.v2._internal.exceptions"),
        "ray.train.v2.api.exceptions",
    ),
    "torch": ("torch", "torch.distributed"),
    "botocore": ("botocore.exceptions",),
    "boto3": ("boto3.exceptions",),
    "urllib3": ("urllib3.exceptions",),
    "requests": ("requests.exceptions",),
    "grpc": ("grpc",),
    "socket": ("socket",),
    "builtins": ("builtins",),
}
GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:144] no error"


def doubled(error: Exception) -> Exception:
    """Return an error as `ray.get` raises it."""
    made: Exception = RayTaskError("train", "Traceback", error, "x", 1, "127.0.0.1")
    return made.as_instanceof_cause()  # type: ignore[attr-defined,no-any-return]


def test_the_table_has_a_row_for_every_class_that_ray_has() -> None:
    """Ray's death as an error of the code was never tried again."""
    classes = [
        cls
        for home in HOMES["ray"]
        for _, cls in inspect.getmembers(importlib.import_module(home), inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__.startswith("ray.")
    ]
    known = {*BY_NAME["ray"], *(name for package, name in WRAPPERS if package == "ray")}
    assert len(classes) > 50
    assert {cls.__name__ for cls in classes} - known == set()


@pytest.mark.parametrize("cls", our_error_classes(), ids=lambda cls: cls.__name__)
def test_the_table_has_a_row_for_every_class_of_ours(cls: type[Exception]) -> None:
    """One that nothing is known of is passed over where another error holds it as its cause."""
    assert own_cause(example_of(cls)) is not None


def test_every_class_that_the_table_names_exists() -> None:
    """A library that renames one of them would make it unknown without a word."""
    named = {(package, name) for package, names in BY_NAME.items() for name in names}
    for package, name in named | set(WRAPPERS):
        modules = [importlib.import_module(home) for home in HOMES[package]]
        assert any(hasattr(module, name) for module in modules), (package, name)


def test_every_error_of_rays_but_one_that_was_lost_can_be_tried_again() -> None:
    """Only what a user's settings, data or code cause is final."""
    not_lost = {"UnserializableException", "CrossLanguageError"}
    wrappers = {"RayTaskError", "UserCodeException"}
    for name, cls in inspect.getmembers(ray.exceptions, inspect.isclass):
        if issubclass(cls, RayError) and name not in not_lost | wrappers:
            error: RayError = cls.__new__(cls)
            assert reason_of(error) in BUDGETS, name


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NonFiniteLossError(3, float("nan"), 1.0), Reason.DIVERGED),
        (CheckpointFormatError("p", "no"), Reason.BAD_INPUT),
        (ImageDatasetError("p", "no"), Reason.BAD_INPUT),
        (ConfigError("f", 1, "2"), Reason.BAD_INPUT),
        (KernelError("no g++"), Reason.SYSTEM_ERROR),
        (BadInputError("no"), Reason.BAD_INPUT),
        (StoreRefusedError("no"), Reason.BAD_INPUT),
        (StoreUnavailableError("no"), Reason.STORAGE_UNAVAILABLE),
        (CredentialsExpiredError("no"), Reason.STORAGE_UNAVAILABLE),
        (RayUnavailableError("no"), Reason.SYSTEM_ERROR),
        (SmokeTestError("a", Reason.OUT_OF_MEMORY, "b"), Reason.OUT_OF_MEMORY),
        (ray.exceptions.LocalRayletDiedError(), Reason.NODE_LOST),
        (ray.exceptions.ActorUnschedulableError("no such node"), Reason.WORKER_LOST),
        (WorkerGroupStartupTimeoutError(1), Reason.WORKER_LOST),
        (torch.OutOfMemoryError("x"), Reason.OUT_OF_MEMORY),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory when calling"), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Reason.SYSTEM_ERROR),
        (RuntimeError("CUDA error: device-side assert triggered"), Reason.USER_CODE),
        (RuntimeError(f"Gloo connectFullMesh failed with {GLOO}"), Reason.WORKER_LOST),
        (torch.distributed.DistBackendError("NCCL error"), Reason.WORKER_LOST),
        (torch.distributed.DistStoreError("timed out"), Reason.WORKER_LOST),
        (ConnectionRefusedError("x"), Reason.SYSTEM_ERROR),
        (TimeoutError("x"), Reason.SYSTEM_ERROR),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.SYSTEM_ERROR),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Reason.SYSTEM_ERROR),
        (FileNotFoundError(errno.ENOENT, "x"), Reason.USER_CODE),
        (ValueError("x"), Reason.USER_CODE),
    ],
)
def test_a_cause_is_the_same_alone_doubled_and_inside_of_what_ray_train_raises(
    error: Exception, reason: Reason
) -> None:
    """An error means one thing, however it came here."""
    twice = doubled(doubled(error))
    caused = RuntimeError("something failed")
    caused.__cause__ = copy.copy(error)
    wrapped = UserExceptionWithTraceback(error, "Traceback")
    forms = [error, doubled(error), twice, wrapped, ControllerError(error), caused]
    forms += [WorkerGroupError("x", {0: wrapped}), doubled(WorkerGroupError("x", {0: error}))]
    for form in forms:
        assert reason_of(form) is reason, repr(form)


def test_an_error_of_the_code_explains_neighbours_that_lose_their_connection() -> None:
    """Tried again, it would fail five times more."""
    lost = RuntimeError(f"Connection closed by peer {GLOO}")
    error = WorkerGroupError("x", {0: lost, 1: KeyError("colour")})
    assert reason_of(error) is Reason.USER_CODE
    assert headline(error) == "KeyError: 'colour'"
    assert reason_of(WorkerGroupError("x", {0: lost, 1: lost})) is Reason.WORKER_LOST


def test_a_worker_that_died_explains_whatever_its_neighbours_met() -> None:
    """What a lost neighbour looks like depends on the library and the moment."""
    died = ActorDiedError()
    assert reason_of(WorkerGroupError("x", {0: ValueError("?"), 1: died})) is Reason.WORKER_LOST


def test_a_wrapper_around_nothing_is_the_systems() -> None:
    """Ray Train's controller fails without a worker's fault."""
    assert reason_of(WorkerGroupError("nobody answered", {})) is Reason.SYSTEM_ERROR


def test_only_the_rank_whose_node_may_be_at_fault_is_named() -> None:
    """Its neighbours fail too, since they lose their connection."""
    full = OSError(errno.ENOSPC, "No space left on device")
    lost = RuntimeError("[gloo] Connection closed by peer")
    failures = {0: lost, 2: WorkerCrashedError(), 3: UserExceptionWithTraceback(full, "t")}
    assert failed_ranks(WorkerGroupError("x", failures)) == (2, 3)
    assert failed_ranks(RuntimeError("x")) == ()


def test_the_headline_is_what_was_raised_not_what_ray_made_of_it() -> None:
    """A reader of `status` wants the sentence, not a traceback's last line."""
    error = SmokeTestError("taking a step", Reason.DIVERGED, "at step 1 the loss is nan")
    told = "the smoke test failed while taking a step: at step 1 the loss is nan"
    assert headline(doubled(doubled(error))) == told
    assert headline(WorkerGroupError("Traceback\n x", {0: doubled(error)})) == told


def test_fields_of_an_error_survive_being_doubled() -> None:
    """The driver read the reason of a smoke test out of the double's arguments: it died of that."""
    error = doubled(SmokeTestError("taking a step", Reason.DIVERGED, "nan"))
    assert isinstance(error, SmokeTestError)
    assert error.fields == ("taking a step", Reason.DIVERGED, "nan")
    assert error.reason == Reason.DIVERGED
    assert type(unwrapped(doubled(error))) is SmokeTestError


def test_every_reason_has_its_place_in_the_retry_policy() -> None:
    """A new reason without one would be a ValueError in the orchestrator's loop."""
    places = [*FINAL_MESSAGES, *BUDGETS, *ENDS_NO_ATTEMPT, *GAVE_WAY]
    assert sorted(places) == sorted(Reason)


def test_every_reason_that_an_error_may_stand_for_can_explain() -> None:
    """One without a rank would end a driver without an outcome."""
    told_by_others = {*GAVE_WAY, *LIMITS, Reason.CANCELLED_BY_USER}
    assert set(EXPLAINS) == set(Reason) - ENDS_NO_ATTEMPT - told_by_others
    assert reason_of(OrchestratorError("x")) in EXPLAINS
