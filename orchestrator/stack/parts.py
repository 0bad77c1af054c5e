"""What all parts of the embedded stack have in common: how one is described, and reached."""

import hashlib
import json
import os
import pwd
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.http_client import ask
from orchestrator.stack.ports import LOOPBACK

BUCKET = "ddpmctl"
STORE_URI = f"s3://{BUCKET}/store"
REGION = "us-east-1"
_FOREIGN = ("AWS_", "DDPMCTL_", "MLFLOW_", "_MLFLOW_", "RAY_")
# What is said of this machine, whichever stack or cluster it is part of.
_OF_MACHINE = frozenset({"DDPMCTL_DATASET_CACHE_GIB"})
_PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Part:
    """One server of the stack, ready to be started.

    Attributes:
        name: `store`, `ray` or `mlflow`.
        command: Program and arguments.
        settings: The environment that is its own.
        inherits: Whether it also gets the environment of the command that starts it.
        folder: Its working folder.
        ports: What it listens on.
        prepare: Called before it is started.
        is_ready: Tells whether it does its work; False while it cannot be reached.
        patience_variables: Told the seconds that a try to start it may take.
        guard: Words before the command, which run it; a part that has none yet needs no new start.
    """

    name: str
    command: tuple[str, ...]
    settings: Mapping[str, str]
    inherits: bool
    folder: Path
    ports: tuple[int, ...]
    prepare: Callable[[], None]
    is_ready: Callable[[], bool]
    patience_variables: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Differs from that of a running process if it must be started again to agree."""
        # The interpreter's path is left out: another shell may spell it differently.
        # A proxy's exceptions are: they are the shell's, and our loopback is always among them.
        settings = {k: v for k, v in self.settings.items() if k.lower() != "no_proxy"}
        described = json.dumps([self.command[1:], sorted(settings.items())])
        return hashlib.sha256(described.encode()).hexdigest()

    @property
    def environment(self) -> dict[str, str]:
        """All of the environment that it is started with."""
        return {**(inherited_environment(self.folder) if self.inherits else {}), **self.settings}


def inherited_environment(home: Path) -> dict[str, str]:
    """Return this process's environment without what configures another stack or cluster.

    The folder of this interpreter's programs comes first in PATH, so that jobs run with it.

    Args:
        home: What HOME is where neither the environment nor passwd has one; MLflow needs one.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _OF_MACHINE or not name.startswith(_FOREIGN)
    }
    programs = sysconfig.get_path("scripts")
    path = os.pathsep.join([programs, kept.get("PATH", os.defpath)])
    return {**_nobody_in_passwd(home), **kept, "PATH": path}


def _nobody_in_passwd(home: Path) -> dict[str, str]:
    """Return who this user is, where passwd has no entry: a container run under a number."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return {"HOME": str(home), "USER": str(os.getuid())}
    return {}


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which clients reach loopback directly, past any proxy."""
    past = {LOOPBACK, "localhost"}
    for name in ("NO_PROXY", "no_proxy"):
        past |= {host for host in environment.get(name, "").split(",") if host}
    joined = ",".join(sorted(past))
    return {"NO_PROXY": joined, "no_proxy": joined}


def http_get(port: int, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Return status and body of a GET on loopback; the status is 0 where nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = ask(f"http://{LOOPBACK}:{port}{path}", headers=headers, timeout_s=_PROBE_TIMEOUT_S)
    except OSError:
        return 0, b""
    return answer.status, answer.body
