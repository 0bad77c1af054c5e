"""Which store, Ray and MLflow the command line speaks to."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import BadInputError
from orchestrator.store.objects import ObjectStore, open_store
from orchestrator.store.uris import parse_store_uri

if TYPE_CHECKING:
    from orchestrator.stack.embedded import Stack, StackInfo

DEFAULT_FOLDER = ".ddpmctl"
# Set by other work, they would win over the stack's own credentials and tokens.
_OVERRIDING = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_USERNAME",
    "RAY_AUTH_TOKEN",
)


@dataclass(frozen=True)
class Surroundings:
    """What a verb works on.

    Attributes:
        store: The truth.
        stack: The embedded stack, if that is what is used.
        started: Whether this command started it.
    """

    store: ObjectStore
    stack: "StackInfo | None"
    started: bool


def stack_folder() -> Path:
    """Return the embedded stack's folder: DDPMCTL_HOME, or .ddpmctl here or in a folder above."""
    chosen = os.environ.get("DDPMCTL_HOME")
    if chosen:
        return Path(chosen)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / DEFAULT_FOLDER / "stack.json").exists():
            return folder / DEFAULT_FOLDER
    return here / DEFAULT_FOLDER


def surroundings(say: Callable[[str], None], *, start: bool = True) -> Surroundings:
    """Return the configured store, or the embedded stack's, starting that if it has to.

    Args:
        say: Told what is started.
        start: Whether a stack may be started.

    Raises:
        BadInputError: Nothing is configured and nothing may be started.
        StackError: The embedded stack does not start.
    """
    uri = os.environ.get("DDPMCTL_STORE")
    if uri:
        parse_store_uri(uri, "DDPMCTL_STORE")
        return Surroundings(open_store(uri), None, started=False)
    # Loaded here: where a store is configured, nothing that starts servers is needed.
    stack: Stack = importlib.import_module("orchestrator.stack.embedded").Stack(stack_folder())
    info = stack.info()
    runs = info is not None and all(part.is_running for part in stack.status())
    if not runs:
        if not start:
            raise BadInputError(
                "no store is configured and no embedded stack runs here: "
                "set DDPMCTL_STORE, or run `ddpmctl up`"
            )
        say(f"no store is configured: starting the embedded stack in {stack_folder()}")
        info = stack.up(say)
    assert info is not None  # noqa: S101 - a stack that runs has ports
    use_stack(info)
    return Surroundings(open_store(os.environ["DDPMCTL_STORE"]), info, started=not runs)


def use_stack(info: "StackInfo") -> None:
    """Make this process a client of an embedded stack, whatever was set before."""
    for name in _OVERRIDING:
        os.environ.pop(name, None)
    os.environ.update(info.environment)
