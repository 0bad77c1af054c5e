"""A stack in a folder of its own, and who runs on it."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.jobs.lease_view import read_lease
from orchestrator.stack import store_guard
from orchestrator.stack.embedded import Stack, StackInfo
from orchestrator.stack.files import StackFolder, load_state
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.nemesis.place import Answer, Registered, answer_of, registered
from tests.nemesis.real.proxy import Proxy

ROOT = Path(__file__).resolve().parents[3]
DISK = "1500m"  # of the stack's folder, where it can be made to have an end
_FOREIGN = ("AWS_", "DDPMCTL_", "MLFLOW_", "RAY_")


@dataclass(frozen=True)
class Part:
    """A process that may be disturbed."""

    name: str
    pid: int


class Home:
    """A stack with a proxy before its store.

    Args:
        folder: Where it lives, and what it says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proxy = Proxy(self._store_port)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        self.environment = {
            **kept,
            "DDPMCTL_HOME": str(folder / "home"),
            "DDPMCTL_PATIENCE_S": "240",
            "NEMESIS_PROXY": self.proxy.url,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.is_limited = _mount_limited(folder / "home")
        self._filler = folder / "home" / "filler"
        self.stack = Stack(folder / "home")
        self.info: StackInfo | None = None
        self._store: ObjectStore | None = None

    def up(self) -> Answer:
        """Start what does not run."""
        answer = self.verb("up", timeout_s=400)
        self.info = self.stack.info()
        assert self.info is not None, answer
        return answer

    def _store_port(self) -> int:
        ports = load_state(StackFolder((self.folder / "home").resolve())).ports
        return ports.get("store.s3", 1)

    def down(self) -> Answer:
        """End it."""
        self._filler.unlink(missing_ok=True)
        answer = self.verb("down", timeout_s=200)
        if self.is_limited:
            subprocess.run(["umount", "--lazy", str(self.folder / "home")], check=False)
        return answer

    def fill_disk(self, seconds: float) -> bool:
        """Leave no byte of the stack's disk free for some seconds; false where it has no end."""
        if not self.is_limited or self._filler.exists():
            return False
        with self._filler.open("wb") as stream, suppress(OSError):  # others write meanwhile
            os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(self._filler).free)
        threading.Timer(seconds, self._filler.unlink, kwargs={"missing_ok": True}).start()
        return True

    @property
    def store(self) -> ObjectStore:
        """The store past the proxy, as who looks on sees it."""
        if self._store is None:
            assert self.info is not None
            os.environ.update(self.info.environment)
            self._store = open_store(self.info.environment["DDPMCTL_STORE"], answer_within_s=5)
        return self._store

    def start_verb(self, *words: str) -> subprocess.Popen[str]:
        """Start a verb."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.nemesis.real.verb", *words],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def verb(self, *words: str, timeout_s: float = 300.0) -> Answer:
        """Run a verb with `-o json`; one that takes too long is killed."""
        return answer_of(self.start_verb(*words, "-o", "json"), timeout_s)

    def parts(self) -> list[Part]:
        """Return the processes of the stack and of the jobs that run on it."""
        found = [Part(one.name, _server_of(one.pid)) for one in self.stack.status() if one.pid]
        for part in list(found):
            if part.name == "ray":
                found += _ray_parts(part.pid)
        with suppress(Exception):
            lease = read_lease(self.store)
            if lease is not None and psutil.pid_exists(lease.holder.pid):
                found.append(Part("orchestrator", lease.holder.pid))
            found += [Part(one.ref.role.partition("-")[0], one.ref.pid) for one in self.processes()]
        return found

    def processes(self, job_id: str = "") -> list[Registered]:
        """Return the living processes of jobs that have some, or of one."""
        return [one for one in registered(self.store, job_id) if one.ref.identity.find()]

    def within_reach(self, processes: Sequence[Registered]) -> list[Registered]:
        """All of them: it is one machine."""
        return list(processes)

    def steps_told(self, run_id: str) -> list[int]:
        """Return the steps of all values of the loss that MLflow has of a run."""
        assert self.info is not None
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.info.environment["MLFLOW_TRACKING_URI"])
        return [one.step for one in client.get_metric_history(run_id, "loss")]


def _mount_limited(folder: Path) -> bool:
    """Have a folder lie on a disk of its own, a small one; false where that is not allowed."""
    folder.mkdir(exist_ok=True)
    if os.path.ismount(folder):
        return True
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "nemesis", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0


def _server_of(pid: int) -> int:
    """Return the process that serves: a guard's child, or the one that was started."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if Path(store_guard.__file__).name in " ".join(process.cmdline()):
            return next((child.pid for child in process.children()), pid)
    return pid


def _ray_parts(pid: int) -> list[Part]:
    names = {"raylet": "raylet", "gcs_server": "gcs", "dashboard.py": "dashboard"}
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error, IndexError):
                told = " ".join(child.cmdline()[:4])
                for word, name in names.items():
                    if f"/{word}" in told.split(" --")[0]:
                        found.append(Part(name, child.pid))
    return found
