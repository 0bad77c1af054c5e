"""A cluster on hosts, seen by somebody who stands at its switch."""

import ctypes
import json
import math
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator.cluster.process_identity import is_as_old
from orchestrator.cluster.process_search import ProcessRef
from orchestrator.jobs.lease_view import LeaseHolder, read_lease
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.hosts.cluster import HEAD, QUICK_TO_NOTICE, STORE, WORKERS, Cluster
from tests.hosts.user import CLI, DDPMCTL
from tests.nemesis.place import Answer, Registered, answer_of, registered

BACK_FOR_S = 60.0  # who was cut off and is back is told of it, and ends, within this
_NETWORK_NAMESPACE = 0x40000000
_RUNS_AGAIN_TRIES = 4
_TOLD = """
import json
from mlflow.tracking import MlflowClient
print(json.dumps([one.step for one in MlflowClient().get_metric_history({run!r}, "loss")]))
"""


class Hosts:
    """A cluster with three workers of one CPU, and a host that has only the command line.

    This process enters the namespace of the switch, so that it sees the store as hosts do.

    Args:
        folder: Takes what the parts say.
    """

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        self._away = Away()
        self._store: ObjectStore | None = None
        _enter_network(self.cluster.network.switch_pid)

    def up(self) -> None:
        """Start all of it."""
        self.cluster.up(len(WORKERS), **QUICK_TO_NOTICE)
        access = self.cluster.environment()
        access["AWS_ENDPOINT_URL_S3"] = f"http://{self.cluster.network.address(STORE)}:8333"
        told = {name: value for name, value in access.items() if name.startswith(("AWS_", "DDPM"))}
        os.environ.update(told)
        self._store = open_store(told["DDPMCTL_STORE"], answer_within_s=5)

    def run_again(self) -> bool:
        """Start what ended anew, and the orchestrator as a cluster's start command does."""
        for _ in range(_RUNS_AGAIN_TRIES):
            with suppress(AssertionError, subprocess.SubprocessError, psutil.Error):
                self.cluster.restart_ended()
                return self.verb("orchestrator", "ensure", timeout_s=120.0).exit_code == 0
        return False

    @property
    def store(self) -> ObjectStore:
        """The store, as who looks on sees it."""
        assert self._store is not None
        return self._store

    def start_verb(self, *words: str) -> "subprocess.Popen[str]":
        """Start a verb on the host that has only the command line; `kill` ends all of it."""
        return _Entered(
            self.cluster.network.hosts[CLI].inside((DDPMCTL, *words)),
            env={**self.cluster.environment(), "DDPMCTL_PATIENCE_S": "240"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def verb(self, *words: str, timeout_s: float = 300.0) -> Answer:
        """Run a verb with `-o json`; one that takes too long is killed."""
        return answer_of(self.start_verb(*words, "-o", "json"), timeout_s)

    def cut(self, name: str, seconds: float) -> None:
        """Take a host off the network for some seconds."""
        self._away.leaves(name)
        self.cluster.network.cut(name)
        try:
            time.sleep(seconds)
        finally:
            self.cluster.network.join(name)
            self._away.comes_back(name, time.monotonic())

    def processes(self, job_id: str = "") -> list[Registered]:
        """Return the living processes of jobs that have some, or of one."""
        all_of_them = list(registered(self.store, job_id))
        living = found_of([one.ref for one in all_of_them])
        return [one for one, process in zip(all_of_them, living, strict=True) if process]

    def within_reach(self, processes: Sequence[Registered]) -> list[Registered]:
        """Return those on hosts that were on the network all the time of late."""
        away = self._away.names(time.monotonic())
        return [one for one in processes if one.ref.host not in away]

    def steps_told(self, run_id: str) -> list[int]:
        """Return the steps of all values of the loss that MLflow has of a run."""
        told: list[int] = json.loads(self.cluster.python(CLI, _TOLD.format(run=run_id)))
        return told

    def find(self, ref: ProcessRef | LeaseHolder) -> psutil.Process | None:
        """Return a process of a host as this machine counts; None if it has ended."""
        return found_of([ref])[0]

    def leader(self) -> psutil.Process | None:
        """Return the orchestrator's process."""
        lease = read_lease(self.store)
        return None if lease is None else self.find(lease.holder)

    def parts(self, program: str) -> Iterator[psutil.Process]:
        """Yield the processes of Ray, on all its hosts, that run a program."""
        spaces = {_space(self.cluster.network.hosts[name].pid) for name in (HEAD, *WORKERS)}
        for (space, _), pid in sorted(_living_pids().items()):
            with suppress(psutil.Error, IndexError):
                process = psutil.Process(pid)
                if space and space in spaces and Path(process.cmdline()[0]).name == program:
                    yield process

    def close(self) -> None:
        """End all of it."""
        self.cluster.close()


class Away:
    """Which hosts are off the network, or were a moment ago."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def leaves(self, name: str) -> None:
        """Note that a host is cut off."""
        self._until[name] = math.inf

    def comes_back(self, name: str, now: float) -> None:
        """Note that it is back; what runs on it hears of the others only after a while."""
        self._until[name] = now + BACK_FOR_S

    def names(self, now: float) -> set[str]:
        """Return those whose processes nobody can have ended yet."""
        return {name for name, until in self._until.items() if now < until}


class _Entered(subprocess.Popen[str]):
    """A command in a host: what is started here only waits for its child, which has to go too."""

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        super().kill()


def _enter_network(pid: int) -> None:
    """Have this thread, and all that it starts from now on, be in a process's network."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as space:
        if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _NETWORK_NAMESPACE):
            raise OSError(ctypes.get_errno(), "cannot enter the hosts' network")


def _space(pid: int) -> str:
    """Return the name of a process's PID namespace, "" if it has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _living_pids() -> dict[tuple[str, int], int]:
    """Return this machine's pids, by namespace and the pid there."""
    found = {}
    for pid in psutil.pids():
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines()
            told = next(line for line in lines if line.startswith("NSpid:"))
            if "State:\tZ" not in "\n".join(lines):
                found[_space(pid), int(told.split()[-1])] = pid
    return found


def found_of(refs: Sequence[ProcessRef | LeaseHolder]) -> list[psutil.Process | None]:
    """Return processes of hosts as this machine counts, None for each that has ended."""
    living = _living_pids()
    return [_found(ref, living.get((ref.boot_id.rpartition(" ")[2], ref.pid))) for ref in refs]


def _found(ref: ProcessRef | LeaseHolder, pid: int | None) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        if pid is not None and is_as_old(process := psutil.Process(pid), ref.born_s):
            return process
    return None
