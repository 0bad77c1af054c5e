"""Who uses a cluster from a host that has only the command line."""

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.hosts.namespaces import Network

CLI = "cli"
DDPMCTL = str(Path(sys.executable).parent / "ddpmctl")
START_TIMEOUT_S = 120.0


class Answer(NamedTuple):
    """What a verb came to."""

    exit_code: int
    value: Any
    stderr: str


class User(ABC):
    """A host with the command line alone, and the cluster that it is pointed at.

    Attributes:
        network: Of all hosts.
    """

    network: Network

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return what a user of the cluster has set."""

    def ddpmctl(
        self,
        *words: str,
        stdin: str = "",
        timeout_s: float = 300.0,
        settings: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run a verb with `-o json` on the host that has only the command line."""
        host = self.network.hosts[CLI]
        command = (DDPMCTL, *words, "-o", "json")
        environment = {**self.environment(), **(settings or {})}
        done = host.run(command, environment, stdin=stdin, timeout_s=timeout_s)
        value = json.loads(done.stdout) if done.stdout.strip() else None
        return Answer(done.returncode, value, done.stderr)

    def submit(self, text: str, *options: str, settings: Mapping[str, str] | None = None) -> str:
        """Submit a job file and return the job's id."""
        answer = self.ddpmctl("submit", "-", *options, stdin=text, settings=settings)
        assert answer.exit_code == 0, answer
        return str(answer.value["job_id"])

    def python(self, name: str, code: str) -> str:
        """Run code on a host with what a user of the cluster has set; return what it prints."""
        command = (sys.executable, "-c", code)
        done = self.network.hosts[name].run(command, self.environment())
        assert done.returncode == 0, done.stderr
        return done.stdout


def with_programs(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which our programs are found."""
    programs = (str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin")
    own = {
        "PATH": ":".join(programs),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": "/tmp/home",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return {**own, **settings}


def wait_until(holds: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait for something to become so; asking takes at most half of the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked_at = time.monotonic()
        if holds():
            return
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(max(0.2, time.monotonic() - asked_at))
