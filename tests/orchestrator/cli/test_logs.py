"""`logs`: in the order of time, each line once, and only those that are wanted."""

import json

import pytest

from orchestrator.cli.logs import logs_command
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs
from tests.support.world import train_job


@pytest.fixture
def store() -> MemoryStore:
    """A store with a job whose driver and two workers wrote by turns."""
    store = MemoryStore()
    submit_job(store, train_job(), "a")
    store.advance(1)
    put(store, "worker-1", 1, b"loss 3\n")
    put(store, "driver-0", 1, b"begin\n(worker pid=7) loss 3\n")
    put(store, "worker-0", 1, b"loss 2\nhal")
    put(store, "worker-1", 2, b"ready\n")
    put(store, "worker-0", 2, b"f\n")
    return store


def put(store: MemoryStore, stream: str, number: int, body: bytes) -> None:
    """Write a piece of a log, a minute after what was written before."""
    store.advance(60)
    store.put(f"{JobPaths('a').attempt(1).logs}{stream}/{number:08d}.log", body)


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ([], ["loss 3", "begin", "loss 2", "ready", "half"]),
        (["--tail", "2"], ["ready", "half"]),
        (["--tail", "0"], []),
        (["--grep", "loss|beg"], ["loss 3", "begin", "loss 2"]),
        (["--grep", "loss", "--tail", "1"], ["loss 2"]),
        (["--rank", "1"], ["loss 3", "ready"]),
        (["--since", "1h"], []),  # the clock of the store stands at a day long gone
    ],
)
def test_lines_come_in_the_order_of_time_and_once(
    monkeypatch: pytest.MonkeyPatch, store: MemoryStore, given: list[str], lines: list[str]
) -> None:
    """Two ranks beside each other tell a story; Ray's copy of a worker's line told it twice."""
    done = Verbs(monkeypatch, store)(logs_command, ["a", *given, "-o", "json"])
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [line["text"] for line in told] == lines
    assert done.err == ""


def test_times_and_ranks_stand_before_the_line(
    monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """To lay it beside another machine's log."""
    done = Verbs(monkeypatch, store)(logs_command, ["a", "--times", "--tail", "1"])
    assert done.out == "00:05:01 [1 worker-0] half\n"


def test_a_job_that_wrote_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer looks like a fault."""
    store = MemoryStore()
    submit_job(store, train_job(), "a")
    verbs = Verbs(monkeypatch, store)
    assert "has written nothing yet" in verbs(logs_command, ["a"]).err
    with pytest.raises(BadInputError, match="no regular expression"):
        verbs(logs_command, ["a", "--grep", "("])
