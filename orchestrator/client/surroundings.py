"""Which store, Ray and MLflow the command line speaks to, and what a verb may start of them."""

import importlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.client.mlflow_page import runs_page
from orchestrator.cluster.private_files import write_private
from orchestrator.errors import BadInputError, LocalFolderError, StackError
from orchestrator.store.conditions import prove_conditions
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from orchestrator.store.uris import parse_store_uri

if TYPE_CHECKING:
    from orchestrator.stack.embedded import Stack, StackInfo

DEFAULT_FOLDER = ".ddpmctl"
Say = Callable[[str], None]
# Set for other work, they configure the clients of a stack of our own as well.
_FOREIGN = ("AWS_", "MLFLOW_", "_MLFLOW_", "RAY_")
# Whoever sets one of these believes that it counts.
_POINTING = (
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN",
)
_NAMED = "told-ignored.json"


class Start(Enum):
    """What a verb may start of an embedded stack."""

    NEVER = "it only reads, and needs the store alone"
    AGAIN = "it changes what there is: a stack that was made here"
    FRESH = "it makes something: a new stack, too"


@dataclass(frozen=True)
class Surroundings:
    """What a verb works on.

    Attributes:
        store: The truth.
        stack: The embedded stack, if that is what is used.
        started: The parts of it that this command started.
    """

    store: ObjectStore
    stack: "StackInfo | None"
    started: tuple[str, ...] = ()

    def mlflow_page(self, experiment_id: str = "") -> str:
        """Return where a browser finds runs; "" where MLflow is not one that has pages."""
        if self.stack is not None:
            return runs_page(self.stack.mlflow_url, experiment_id)
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        return runs_page(uri, experiment_id) if uri.startswith(("http://", "https://")) else ""

    def bring_up_rest(self, say: Say) -> tuple[str, ...]:
        """Start what of an embedded stack does not run, and return what this command started.

        One that another command is starting is waited for.

        Raises:
            StackError: A part does not start.
        """
        if self.stack is None:
            return ()
        stack = _stack(self.stack.folder)
        if stack.is_settled():
            return self.started
        return (*self.started, *stack.up(say).started)


def stack_folder() -> Path:
    """Return the embedded stack's folder: DDPMCTL_HOME, or .ddpmctl here or in a folder above.

    Raises:
        BadInputError: There is no such place.
    """
    chosen = os.environ.get("DDPMCTL_HOME")
    if chosen:
        try:
            return Path(chosen).expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise BadInputError(f"DDPMCTL_HOME={chosen[:80]}: {reason}") from error
    try:
        here = Path.cwd()
    except OSError as error:
        raise BadInputError(
            "the current folder is gone or closed to you: change to another, or set DDPMCTL_HOME"
        ) from error
    for folder in (here, *here.parents):
        with suppress(OSError):  # one that may not be entered holds nothing of ours
            if (folder / DEFAULT_FOLDER / "stack.json").exists():
                return folder / DEFAULT_FOLDER
    return here / DEFAULT_FOLDER


def surroundings(
    say: Say, start: Start = Start.NEVER, *, writes: bool | None = None
) -> Surroundings:
    """Return the configured store, or the embedded stack's.

    Args:
        say: Told what is started, and which settings are ignored.
        start: What may be started.
        writes: Whether the verb writes into the store; all but reading verbs do, if None.

    Raises:
        BadInputError: Nothing is configured and nothing may be started, or the store ignores
            conditions.
        StackError: The embedded stack does not run, or does not start.
    """
    uri = os.environ.get("DDPMCTL_STORE")
    if uri:
        parse_store_uri(uri, "DDPMCTL_STORE")
        found = Surroundings(open_store(uri), None)
    else:
        found = _embedded(say, start)
    if start is not Start.NEVER if writes is None else writes:
        prove_conditions(found.store)
    return found


def _embedded(say: Say, start: Start) -> Surroundings:
    folder = stack_folder()
    stack = _stack(folder)
    info, started = stack.info(), tuple[str, ...]()
    if info is None and start is not Start.FRESH:
        raise BadInputError(
            f"no store is configured, and no embedded stack was made in {folder}: "
            f"set DDPMCTL_STORE or DDPMCTL_HOME, or run `ddpmctl up`{_counting_for_nothing()}"
        )
    if info is None or not stack.has_store(say):
        if start is Start.NEVER:
            raise StackError(
                f"the store of the embedded stack in {folder} does not run: "
                "`ddpmctl up` starts it, and set DDPMCTL_HOME for one elsewhere"
            )
        say(f"no store is configured: starting the embedded stack in {folder}")
        info = stack.up(say)
        started = info.started
    use_stack(info, say)
    return Surroundings(open_store(os.environ["DDPMCTL_STORE"]), info, started)


def _counting_for_nothing() -> str:
    """Say which variables are set that would count if there were a store."""
    names = [name for name in _POINTING if os.environ.get(name)]
    if not names:
        return ""
    return f" ({', '.join(names)} count{'s' * (len(names) == 1)} only beside DDPMCTL_STORE)"


def _stack(folder: Path) -> "Stack":
    # Loaded here: where a store is configured, nothing that starts servers is needed.
    stack: Stack = importlib.import_module("orchestrator.stack.embedded").Stack(folder)
    return stack


def use_stack(info: "StackInfo", say: Say) -> None:
    """Make this process a client of an embedded stack, whatever was set before.

    Args:
        info: The stack.
        say: Told, once a stack, which settings do not count.
    """
    foreign = {name for name in os.environ if name.startswith(_FOREIGN)}
    set_here = {n for n in foreign if os.environ[n] and os.environ[n] != info.environment.get(n)}
    _tell_ignored(sorted(set_here & {*_POINTING}), info.folder, say)
    for name in foreign:
        del os.environ[name]
    os.environ.update(info.environment)


def _tell_ignored(names: Iterable[str], folder: Path, say: Say) -> None:
    named = _named_before(folder)
    fresh = [name for name in names if name not in named]
    if not fresh:
        return
    say(
        f"{', '.join(fresh)} {'is' if len(fresh) == 1 else 'are'} ignored: DDPMCTL_STORE is not "
        f"set, so the embedded stack in {folder} is used"
    )
    with suppress(LocalFolderError):  # then it is said again
        write_private(folder / _NAMED, json.dumps(sorted({*named, *fresh})).encode())


def _named_before(folder: Path) -> set[str]:
    try:
        return {str(name) for name in json.loads((folder / _NAMED).read_bytes())}
    except (OSError, ValueError, TypeError):
        return set()
