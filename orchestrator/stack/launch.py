"""Bringing one part of the embedded stack up, and ending it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Lock

from orchestrator.cluster.patience import VARIABLE, patience_s
from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.cluster.processes import end_processes, owned_processes, start_detached
from orchestrator.errors import StackError
from orchestrator.stack.files import StackFolder, StackState, save_state
from orchestrator.stack.parts import Part
from orchestrator.stack.ports import is_free

Progress = Callable[[str], None]

TITLES = {
    "store": "the store (SeaweedFS)",
    "ray": "the Ray head",
    "mlflow": "the MLflow server",
}
_GRACE_S = {"store": 10.0, "ray": 4.0, "mlflow": 8.0}
_RUNNING_TIMEOUT_S = 60.0  # for a part that ran already: afterwards it is started again
_HASTE_S = 5.0  # what fails sooner than this would fail again
_POLL_S = 0.1
_LOG_BYTES = 20 * 1024**2
_ERROR = re.compile(r"error|fatal|exception|denied|no space|^F\d{4} ", re.IGNORECASE)


class PortTakenError(StackError):
    """Somebody else took a port between choosing it and listening on it."""


class Launcher:
    """Starts and ends the parts of one stack, and writes down whom it started.

    Args:
        folder: Of the stack.
        state: What the stack remembers; changed in place and saved.
        on_progress: Called with a line for each thing that happens, from any thread.
    """

    def __init__(self, folder: StackFolder, state: StackState, on_progress: Progress) -> None:
        self._folder = folder
        self._state = state
        self._on_progress = on_progress
        self._turn = Lock()
        self._stopped = Event()

    def stop(self) -> None:
        """Make every `bring_up` that still waits give up."""
        self._stopped.set()

    def bring_up(self, part: Part) -> bool:
        """Have a part do its work; return whether it had to be started.

        Raises:
            PortTakenError: Other ports may help.
            StackError: It does not start.
        """
        leader = self._state.leaders.get(part.name)
        if leader is not None and leader.find() is not None:
            agrees = self._state.settings.get(part.name) == part.digest
            if agrees and self._is_ready_within(part, leader, _RUNNING_TIMEOUT_S):
                return False
        self.end(part.name)
        self._start(part)
        return True

    def end(self, name: str) -> bool:
        """End all processes of a part; return whether there were any.

        Raises:
            StackError: One does not end.
        """
        leader = self._state.leaders.get(name)
        mark = self._mark(name)
        has_any = bool(owned_processes(mark, leader))
        if has_any:
            self._tell(f"ending {TITLES[name]}")
            end_processes(mark, leader, grace_s=_GRACE_S[name])
        if leader is not None:
            with self._turn:
                self._state.leaders.pop(name, None)
                self._state.settings.pop(name, None)
                save_state(self._folder, self._state)
        return has_any

    def _start(self, part: Part) -> None:
        patience = patience_s()
        for number, is_last in enumerate((False, False, True), 1):
            started_at = time.monotonic()
            # What a busy machine did not do in one time it does in two or three.
            reason = self._try_to_start(part, number * patience)
            took_s = time.monotonic() - started_at
            if reason is None:
                self._tell(f"{TITLES[part.name]} is ready ({took_s:.1f} s)")
                return
            if is_last or took_s < _HASTE_S or self._stopped.is_set():
                raise StackError(f"{TITLES[part.name]} {reason}")
            self._tell(f"{TITLES[part.name]} {reason}; trying again")

    def _try_to_start(self, part: Part, within_s: float) -> str | None:
        """Start a part; return why it does not work, or None."""
        log = self._log(part.name)
        log_start = log.stat().st_size if log.exists() else 0
        part.prepare()
        self._tell(f"starting {TITLES[part.name]}")
        with self._ended_on_error(part.name):
            leader = self._launch(part, log, within_s)
            if self._is_ready_within(part, leader, within_s):
                return None
        how = f"is not ready within {within_s:g} s ({VARIABLE} gives it more)"
        if leader.find() is None:
            how = "stopped while starting"
        self.end(part.name)
        if taken := [port for port in part.ports if not is_free(port)]:
            raise PortTakenError(f"port {taken[0]} of {TITLES[part.name]} was taken in between")
        return f"{how}: {_told_reason(log, log_start)}"

    def _launch(self, part: Part, log: Path, within_s: float) -> ProcessIdentity:
        """Start a part's process and write down whom."""
        patience = dict.fromkeys(part.patience_variables, f"{within_s:.0f}")
        leader = start_detached(
            (*part.guard, *part.command),
            {**part.environment, **patience},
            mark=self._mark(part.name),
            folder=part.folder,
            log=log,
        )
        with self._turn:
            self._state.leaders[part.name] = leader
            self._state.settings[part.name] = part.digest
            save_state(self._folder, self._state)
        return leader

    @contextmanager
    def _ended_on_error(self, name: str) -> Iterator[None]:
        """Leave nothing running of a part whose start breaks in a way that nobody foresaw."""
        with ExitStack() as undo:
            undo.callback(self.end, name)
            yield
            undo.pop_all()

    def _is_ready_within(self, part: Part, leader: ProcessIdentity, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while leader.find() is not None and not self._stopped.is_set():
            if part.is_ready():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return False

    def _mark(self, name: str) -> str:
        return f"{self._folder.root}:{name}"

    def _log(self, name: str) -> Path:
        log = self._folder.logs / f"{name}.log"
        try:
            if log.exists() and log.stat().st_size > _LOG_BYTES:
                log.replace(log.with_suffix(".log.1"))
        except OSError as error:
            raise StackError(f"cannot move {log}: {error.strerror}") from error
        return log

    def _tell(self, line: str) -> None:
        with self._turn:
            self._on_progress(line)


def _told_reason(log: Path, start: int) -> str:
    """Return the last line since `start` that names an error, or else the last one."""
    content = log.read_bytes()[start:].decode(errors="replace")
    lines = [line.strip()[:300] for line in content.splitlines() if line.strip()]
    telling = [line for line in lines if _ERROR.search(line)] or lines or ["it printed nothing"]
    return f"{telling[-1]}; see {log}"
