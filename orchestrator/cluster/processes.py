"""Processes that outlive the command which started them, and are ended without touching others.

A pid alone names nobody: it may have been given to somebody else since. What we start is known by
its pid and time of birth together, by its session, and by a mark in its environment, which its
children inherit. The mark also finds what is left over when a leader was killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread

import psutil

from orchestrator.cluster.process_identity import ProcessIdentity, boot_id, born_s, is_as_old
from orchestrator.errors import StackError

MARK = "DDPMCTL_STACK_PART"
_KILL_TIMEOUT_S = 15.0
_POLL_S = 0.1


def start_detached(
    command: Sequence[str], environment: Mapping[str, str], *, mark: str, folder: Path, log: Path
) -> ProcessIdentity:
    """Start a process in a session of its own, with its output in a log file.

    Args:
        command: Program and arguments.
        environment: All of its environment, but for the mark.
        mark: What this process and its children are found by later.
        folder: Its working folder.
        log: The file that its output is appended to.

    Raises:
        StackError: The program could not be started.
    """
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env={**environment, MARK: mark},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
    except OSError as error:
        raise StackError(f"cannot start {command[0]}: {error}") from error
    # Somebody must collect it when it ends, for as long as we live.
    Thread(target=process.wait, daemon=True).start()
    try:
        return ProcessIdentity.of(psutil.Process(process.pid))
    except psutil.NoSuchProcess:
        return ProcessIdentity(process.pid, time.time() - psutil.boot_time(), boot_id())


def owned_processes(mark: str, leader: ProcessIdentity | None) -> list[psutil.Process]:
    """Return every living process that was started under a mark, and what descends from it.

    Args:
        mark: What `start_detached` was given.
        leader: The process that it returned, if known.
    """
    everyone = {p.pid: p for p in psutil.process_iter(["ppid"]) if p.pid != os.getpid()}
    owned = {pid for pid, process in everyone.items() if _belongs(process, mark, leader)}
    while True:
        children = {pid for pid, p in everyone.items() if p.info["ppid"] in owned} - owned
        if not children:
            break
        owned |= children
    return [everyone[pid] for pid in sorted(owned) if _is_alive(everyone[pid])]


def end_processes(mark: str, leader: ProcessIdentity | None, *, grace_s: float) -> None:
    """End every process of a mark: ask its leader's group, and kill what is there after a while.

    Args:
        mark: What `start_detached` was given.
        leader: The process that it returned, if known.
        grace_s: How long they may take to end by themselves.

    Raises:
        StackError: Some process could not be ended.
    """
    _ask_to_end(mark, leader)
    kill_at = time.monotonic() + grace_s
    give_up_at = kill_at + _KILL_TIMEOUT_S
    while owned := owned_processes(mark, leader):
        now = time.monotonic()
        if now > give_up_at:
            pids = ", ".join(str(process.pid) for process in owned)
            raise StackError(f"processes {pids} do not end; end them by hand")
        if now > kill_at:
            _send(owned, signal.SIGKILL)
        time.sleep(_POLL_S)


def _ask_to_end(mark: str, leader: ProcessIdentity | None) -> None:
    if leader is None or leader.find() is None:
        _send(owned_processes(mark, leader), signal.SIGTERM)
        return
    try:
        os.killpg(leader.pid, signal.SIGTERM)  # it leads the group, so the group is ours
    except ProcessLookupError:
        return


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # psutil looks first whether the pid was given away
        except psutil.NoSuchProcess:
            continue


def _belongs(process: psutil.Process, mark: str, leader: ProcessIdentity | None) -> bool:
    try:
        if process.environ().get(MARK) == mark:
            return True
    except psutil.AccessDenied:
        return False  # another user's
    except psutil.NoSuchProcess:
        return False
    return leader is not None and _is_in_session(process, leader)


def _is_in_session(process: psutil.Process, leader: ProcessIdentity) -> bool:
    # Some of Ray's processes write their title over their environment, so the mark is gone.
    try:
        if leader.boot_id != boot_id() or os.getsid(process.pid) != leader.pid:
            return False
        if born_s(process) < leader.born_s and not is_as_old(process, leader.born_s):
            return False
        return leader.find() is not None or not psutil.pid_exists(leader.pid)
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
