"""A machine compiles a network once, however many workers start on it together."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.attempts.compile_turn import compile_in_turn

NUM_WORKERS = 3


class Workers:
    """Threads that compile one thing, and what they saw of each other."""

    def __init__(self) -> None:
        self.at_once = 0
        self.most_at_once: list[int] = []
        self.lock = threading.Lock()
        self.meeting = threading.Barrier(NUM_WORKERS - 1)

    def compile(self) -> None:
        """Note how many are at it; all but the first wait until all of them are."""
        with self.lock:
            self.at_once += 1
            self.most_at_once.append(self.at_once)
            is_first = len(self.most_at_once) == 1
        if not is_first:
            self.meeting.wait(timeout=10)
        with self.lock:
            self.at_once -= 1

    def run(self, work: Callable[[], None]) -> None:
        """Let all of them do something."""
        threads = [threading.Thread(target=work) for _ in range(NUM_WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)


def test_the_first_compiles_alone_and_the_others_then_load_together(tmp_path: Path) -> None:
    """Three compilers at once take three times as long; three loaders need not queue."""
    workers = Workers()
    workers.run(lambda: compile_in_turn("key", workers.compile, tmp_path))
    assert workers.most_at_once == [1, 1, 2]


def test_one_that_fails_leaves_the_work_to_the_next(tmp_path: Path) -> None:
    """A killed compiler has left nothing in the cache."""

    def fail() -> None:
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space"):
        compile_in_turn("key", fail, tmp_path)
    workers = Workers()
    workers.run(lambda: compile_in_turn("key", workers.compile, tmp_path))
    assert workers.most_at_once == [1, 1, 2]
