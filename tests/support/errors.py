"""Every class of errors of ours, and one error of each."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import ddpm.errors
import orchestrator
from ddpm.config import ConfigError
from orchestrator.errors import OrchestratorError
from orchestrator.lifecycle.state import Reason

_PARTS = {
    "SpecConflictError": ("j1",),
    "JobNotFoundError": ("j1",),
    "InvalidTransitionError": ("j1", "QUEUED", "RUNNING"),
    "ObjectNotFoundError": ("a/key",),
    "ConditionFailedError": ("a/key",),
    "AttemptSupersededError": ("j1", 3),
    "SmokeTestError": ("taking a step", Reason.OUT_OF_MEMORY, "no memory"),
    "ConfigError": ("training.ema_decay", 2.0, "must be below 1"),
    "CheckpointFormatError": ("a/path", "is no checkpoint"),
    "ImageDatasetError": ("a/path", "is no array"),
    "ForeignModelError": ("unet/config.json", "has a kind of block that is not known here"),
    "NonFiniteLossError": (7, 1.5, 2.5),
}


def our_error_classes() -> list[type[Exception]]:
    """Return all classes below `OrchestratorError`, and those of the mathematics."""
    for module in pkgutil.walk_packages(orchestrator.__path__, "orchestrator."):
        importlib.import_module(module.name)
    found = (c for _, c in inspect.getmembers(ddpm.errors, inspect.isclass))
    maths = [c for c in found if issubclass(c, Exception)]
    return [OrchestratorError, *subclasses(OrchestratorError), ConfigError, *maths]


def subclasses(cls: type[Exception]) -> Iterator[type[Exception]]:
    """Yield the classes of ours below one, each before its own; not the doubles that Ray makes."""
    for below in cls.__subclasses__():
        if below.__module__.startswith("orchestrator."):
            yield below
            yield from subclasses(below)


def example_of(cls: type[Exception]) -> Exception:
    """Return an error of a class."""
    return cls(*_PARTS.get(cls.__name__, ("a line that says what",)))
