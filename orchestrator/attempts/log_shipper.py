"""Ships what a process writes to its standard output and error, as it is written."""

import faulthandler
import io
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from orchestrator.attempts.local_log import (
    LocalLog,
    discard,
    local_root,
    new_local_log,
    try_salvage,
)
from orchestrator.errors import StoreError
from orchestrator.jobs.logs import stream_folder
from orchestrator.store.keys import AttemptPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.watched_thread import WatchedThread

_POLL_EVERY_S = 0.25
_LONGEST_PAUSE_S = 30.0


class LogShipper:
    """Redirects this process's fds 1 and 2 into a local file and ships that to the store.

    The redirection is below Python, so messages of C libraries and of a crash are caught too. The
    original standard output still gets everything. An outage of the store delays pieces; the
    local file is the buffer, so no memory grows.

    Args:
        store: Where to.
        paths: The attempt's keys.
        role: "driver", "worker", ...: letters, digits and hyphens.
        rank: The rank within the role.
        every_s: Seconds between pieces.
        patience_s: How long `close` waits for a store that does not answer.
        root: Folder of the local files; this user's folder by default.
    """

    def __init__(
        self,
        store: ObjectStore,
        paths: AttemptPaths,
        role: str,
        rank: int,
        *,
        every_s: float = 2.0,
        patience_s: float = 20.0,
        root: Path | None = None,
    ) -> None:
        self._store = store
        self._folder = stream_folder(paths, role, rank)
        self._every_s = every_s
        self._patience_s = patience_s
        self._root = root or local_root()
        self._resources = ExitStack()
        self._ended = threading.Event()
        self._thread: WatchedThread | None = None

    def start(self) -> None:
        """Redirect the output and begin to ship it."""
        log = self._resources.enter_context(new_local_log(self._root, self._store, self._folder))
        echo_fd = os.dup(1)
        self._resources.callback(os.close, echo_fd)
        _flush_python()
        self._redirect(log.output)
        _make_line_buffered()
        if not faulthandler.is_enabled():
            faulthandler.enable(2)
            self._resources.callback(faulthandler.disable)
        self._thread = WatchedThread(lambda: self._run(log, echo_fd), "log-shipper")
        self._thread.start()

    def _redirect(self, path: Path) -> None:
        output_fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._saved = {fd: os.dup(fd) for fd in (1, 2)}
        for fd in self._saved:
            os.dup2(output_fd, fd)
        os.close(output_fd)

    def close(self) -> None:
        """Give the output back and ship the rest.

        What a dead store does not take within `patience_s` stays on this machine, where the next
        process of ours brings it in.

        Raises:
            Exception: What ended the shipping for good.
        """
        thread = self._finish()
        if thread is not None:
            thread.raise_failure()

    def _finish(self) -> WatchedThread | None:
        if self._thread is None:
            return None
        _flush_python()
        for fd, saved_fd in self._saved.items():
            os.dup2(saved_fd, fd)
            os.close(saved_fd)
        self._ended.set()
        self._thread.join()
        thread, self._thread = self._thread, None
        self._resources.close()
        return thread

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        thread = self._finish()
        if thread is not None and kind is None:  # else the error on its way tells more
            thread.raise_failure()

    def _run(self, log: LocalLog, echo_fd: int) -> None:
        echoed, due_at, pause_s = 0, 0.0, self._every_s
        try_salvage(self._store, self._root)
        while not self._ended.wait(_POLL_EVERY_S):
            echoed = _echo(log, echo_fd, echoed, at_end=False)
            if time.monotonic() < due_at:
                continue
            pause_s = self._every_s if _shipped(log, at_end=False) else 2 * pause_s
            due_at = time.monotonic() + min(pause_s, _LONGEST_PAUSE_S)
        _echo(log, echo_fd, echoed, at_end=True)
        self._ship_rest(log)

    def _ship_rest(self, log: LocalLog) -> None:
        end = time.monotonic() + self._patience_s
        while not _shipped(log, at_end=True):
            if time.monotonic() > end:
                return
            time.sleep(_POLL_EVERY_S)
        discard(log)


def _shipped(log: LocalLog, *, at_end: bool) -> bool:
    try:
        log.ship(at_end=at_end)
    except StoreError:
        return False  # a message about it would go into the very log that is late
    return True


def _echo(log: LocalLog, fd: int, start: int, *, at_end: bool) -> int:
    while text := log.lines(start, at_end=at_end):
        start += len(text)
        try:
            os.write(fd, log.redacted(text))
        except OSError:
            continue  # whoever read the original output is gone
    return start


def _flush_python() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _make_line_buffered() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
