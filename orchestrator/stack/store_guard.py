"""Runs the embedded store, and stops it for as long as its disk is full.

`python -I store_guard.py weed mini ...`, in the store's folder.

SeaweedFS goes on with a full disk by halves: one of its index's databases that could not write
refuses everything until it is opened anew, while the others take objects whose folders the broken
one does not list. A store that does not answer is waited for; one that lists less than it holds is
believed.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

_FULL = b"no space left on device"
_ROOM_BYTES = 64 * 1024**2
_LOOK_EVERY_S = 1.0
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class StoreGuard:
    """Starts a store, and again each time there is room after its disk was full.

    Args:
        command: Program and arguments; the working folder is the one that it writes to.
        room_bytes: What has to be free before it is started again.
    """

    def __init__(self, command: Sequence[str], room_bytes: int = _ROOM_BYTES) -> None:
        self._command = command
        self._room_bytes = room_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ended = False

    def run(self) -> int:
        """Return the store's exit code once it ended with room on its disk, or by `end`."""
        while True:
            was_full, code = self._run_once()
            if self._must_end() or not (was_full or self._is_full()):
                return code
            _say(b"the disk is full: the store waits for room\n")
            while self._is_full():
                if self._must_end():
                    return code
                time.sleep(_LOOK_EVERY_S)
            _say(b"there is room again: the store starts\n")

    def end(self) -> None:
        """End the store in its own way; `run` returns then."""
        self._is_ended = True
        if self._child is not None:
            self._child.terminate()

    def _run_once(self) -> tuple[bool, int]:
        """Run the store to its end; return whether it met a full disk and was stopped for it."""
        with subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        ) as child:
            self._child = child
            if self._must_end():  # asked for while it was being started
                child.terminate()
            met_full_disk = False
            for line in child.stdout or ():
                _say(line)
                if _FULL in line and not met_full_disk:
                    met_full_disk = True
                    child.kill()
        self._child = None
        return met_full_disk, child.returncode

    def _must_end(self) -> bool:  # a signal may set it at any time
        return self._is_ended

    def _is_full(self) -> bool:
        return shutil.disk_usage(os.curdir).free < self._room_bytes


def _end_with_parent() -> None:
    """Have the kernel kill the store when its guard is killed: nobody would end it later."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _say(line: bytes) -> None:
    with suppress(OSError):  # the log may lie on the same disk
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def main() -> int:
    """Run the command that the arguments are."""
    guard = StoreGuard(sys.argv[1:])

    def end(_signal: int, _frame: FrameType | None) -> None:
        guard.end()

    signal.signal(signal.SIGTERM, end)
    return guard.run()


if __name__ == "__main__":
    sys.exit(main())
