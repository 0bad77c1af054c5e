"""Processes are ended exactly: all of ours, however far they went, and nobody else's."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.cluster.process_search import ProcessRef, local_processes
from orchestrator.cluster.processes import MARK, end_processes, owned_processes, start_detached
from orchestrator.errors import StackError

Start = Callable[[str], ProcessIdentity]
SLEEP = "import time; time.sleep(600)"
# A child in a session of its own, as Ray gives to the drivers of jobs.
STRAY = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', '{SLEEP}'], start_new_session=True);"
    "time.sleep(600)"
)
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(600)"
)


@pytest.fixture
def mark(tmp_path: Path) -> str:
    """A mark that no other test uses."""
    return f"{tmp_path}:part"


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Start]:
    """Start a Python program under the mark; everything is killed in the end."""
    yield lambda program: start_detached(
        [sys.executable, "-c", program],
        dict(os.environ),
        mark=mark,
        folder=tmp_path,
        log=tmp_path / "log",
    )
    end_processes(mark, None, grace_s=0)


def wait_for(number: int, mark: str, leader: ProcessIdentity | None) -> list[psutil.Process]:
    """Wait until so many processes are owned."""
    deadline = time.monotonic() + 30
    while len(found := owned_processes(mark, leader)) != number:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_reused_pid_is_another_process() -> None:
    """After a reboot a remembered pid may be anybody's, and must not be killed."""
    mine = psutil.Process()
    identity = ProcessIdentity.of(mine)
    assert identity.find() == mine
    assert replace(identity, born_s=identity.born_s - 60.0).find() is None
    assert replace(identity, boot_id="an earlier one").find() is None


def test_a_process_stays_itself_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was suspended is set right; nothing that runs on it has changed."""
    identity, booted_at = ProcessIdentity.of(psutil.Process()), psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: booted_at + 3600.0)
    assert psutil.boot_time() == booted_at + 3600.0
    assert identity.find() is not None
    ref = ProcessRef("driver", os.getpid(), identity.born_s, identity.boot_id, "n", "h")
    assert local_processes([ref], kill=False).running == [ref]


def test_process_outlives_nobody_and_belongs_to_its_own_session(start: Start, mark: str) -> None:
    """Ctrl-C in the terminal of `up` must not reach the servers."""
    leader = start(SLEEP)
    assert os.getsid(leader.pid) == leader.pid
    assert [process.pid for process in owned_processes(mark, leader)] == [leader.pid]
    end_processes(mark, leader, grace_s=5)
    assert leader.find() is None


@pytest.mark.slow
def test_child_that_left_the_session_is_ended_too(start: Start, mark: str) -> None:
    """A job's driver that survived its Ray head would go on writing to the store."""
    leader = start(STRAY)
    stray = next(p for p in wait_for(2, mark, leader) if p.pid != leader.pid)
    assert os.getsid(stray.pid) != leader.pid
    end_processes(mark, leader, grace_s=2)
    assert owned_processes(mark, leader) == []


def test_orphan_is_found_when_its_leader_was_killed(start: Start, mark: str) -> None:
    """After kill -9 nothing but the mark tells whose the rest is."""
    leader = start(STRAY)
    wait_for(2, mark, leader)
    psutil.Process(leader.pid).kill()
    (orphan,) = wait_for(1, mark, leader)
    assert owned_processes(mark, None) == [orphan]
    end_processes(mark, leader, grace_s=2)
    assert owned_processes(mark, None) == []


def test_process_that_ignores_the_request_is_killed(
    start: Start, mark: str, tmp_path: Path
) -> None:
    """`down` has to end, whatever hangs."""
    leader = start(DEAF)
    deadline = time.monotonic() + 30
    while "deaf" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    end_processes(mark, leader, grace_s=0.3)
    assert leader.find() is None


def test_other_marks_are_left_alone(start: Start, mark: str, tmp_path: Path) -> None:
    """Two stacks on one machine must not end each other's processes."""
    leader = start(SLEEP)
    other = {**os.environ, MARK: f"{mark}2"}
    with subprocess.Popen([sys.executable, "-c", SLEEP], env=other) as neighbour:
        end_processes(mark, leader, grace_s=5)
        assert neighbour.poll() is None
        neighbour.kill()


def test_missing_program_is_one_line(tmp_path: Path) -> None:
    """The reader learns which program is missing, and sees no traceback."""
    with pytest.raises(StackError, match="cannot start /nowhere/weed"):
        start_detached(["/nowhere/weed"], {}, mark="m", folder=tmp_path, log=tmp_path / "log")
