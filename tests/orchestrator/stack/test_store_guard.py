"""A store whose disk is full is stopped, and started again once there is room."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.stack import store_guard
from orchestrator.stack.store_guard import StoreGuard

# Writes down that it was started; the first one meets a full disk and would go on.
STORE = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
starts = Path("starts")
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
print("started", number, flush=True)
if number == 0 and "full" in sys.argv:
    print("E1130 insert entry: write filerldb2/06/000006.log: no space left on device", flush=True)
time.sleep(0 if number and "ends" in sys.argv else 600)
sys.exit(7)
"""


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for something to become so."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store's folder, with its program."""
    (tmp_path / "store.py").write_text(STORE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a guard as the stack does."""
    command = [sys.executable, "-I", store_guard.__file__, sys.executable, "store.py", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)


def test_a_full_disk_stops_the_store_at_once_and_room_starts_it_again(here: Path) -> None:
    """It went on by halves: what it took meanwhile was missing from its lists."""
    assert StoreGuard([sys.executable, "store.py", "full", "ends"]).run() == 7
    assert (here / "starts").read_text() == "xx"


def test_it_is_not_started_before_there_is_room(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start on a full disk would fail, and may break more."""
    free = iter([0, 0, 0, 10**9, 10**9])
    looked: list[int] = []

    def usage(_: str) -> SimpleNamespace:
        looked.append((here / "starts").read_text().count("x"))
        return SimpleNamespace(free=next(free))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(store_guard, "_LOOK_EVERY_S", 0.01)
    assert StoreGuard([sys.executable, "store.py", "full", "ends"]).run() == 7
    assert looked == [1, 1, 1, 1, 2]


def _is_gone(process: psutil.Process) -> bool:
    return not process.is_running()


def test_sigterm_ends_both_and_sigkill_of_the_guard_leaves_no_store(here: Path) -> None:
    """Nobody else knows of the store's process."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        (here / "starts").unlink(missing_ok=True)
        guard = started(here)
        eventually(lambda: (here / "starts").exists())
        (store,) = psutil.Process(guard.pid).children()
        os.kill(guard.pid, sign)
        guard.communicate(timeout=20)
        eventually(partial(_is_gone, store))


def test_what_ends_by_itself_ends_the_guard_with_its_code(here: Path) -> None:
    """The stack says why a part stopped while it was started."""
    (here / "starts").write_text("x")
    guard = started(here, "ends")
    guard.communicate(timeout=20)
    assert guard.returncode == 7
