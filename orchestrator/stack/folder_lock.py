"""The lock of a stack's folder: one `up` or `down` at a time.

The kernel drops it with the process that holds it, so it cannot be stale.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.errors import StackError
from orchestrator.stack.launch import Progress

_TIMEOUT_S = 600.0
_POLL_S = 0.2


@contextmanager
def locked(path: Path, on_progress: Progress) -> Iterator[None]:
    """Hold the lock; where another command holds it, say so and wait.

    Args:
        path: The file that is locked; made where it is missing.
        on_progress: Takes the line that says so.

    Raises:
        StackError: The file cannot be opened, or the other command takes ten minutes.
    """
    lock = FileLock(path, mode=0o600, poll_interval=_POLL_S)
    try:
        _acquire(lock, on_progress)
    except Timeout:
        raise StackError(f"another `up` or `down` holds {path}; try again") from None
    except OSError as error:
        raise StackError(f"cannot open {path}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, on_progress: Progress) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_progress("waiting for another `up` or `down` of this stack")
        lock.acquire(timeout=_TIMEOUT_S)


def is_locked(path: Path) -> bool:
    """Tell whether a command holds the lock, in a way that keeps none from starting."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
