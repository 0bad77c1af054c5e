"""Logs: every byte of every rank, in the store as it is written, even a crash's last words."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.attempts.local_log import PIECE_BYTES, LocalLog, Shipment, new_local_log, salvage
from orchestrator.attempts.log_shipper import LogShipper
from orchestrator.attempts.redaction import redacted, secret_values
from orchestrator.errors import StoreUnavailableError
from orchestrator.jobs.logs import LogCursor, LogReader, LogStream, read_log, stream_folder
from orchestrator.store.keys import JobPaths
from tests.support.fakes import FaultyStore, MemoryStore

ROOT = Path(__file__).resolve().parents[3]
JOB = JobPaths("digits-20261122-153012-k7q2")
ATTEMPT = JOB.attempt(1)
FOLDER = stream_folder(ATTEMPT, "worker", 0)
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY"


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for local logs of this test alone."""
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def shipper(store: MemoryStore | FaultyStore, root: Path, rank: int = 0) -> LogShipper:
    """Return a shipper that does not dawdle."""
    return LogShipper(store, ATTEMPT, "worker", rank, every_s=0.05, patience_s=0.3, root=root)


def lines_of(store: MemoryStore) -> list[str]:
    """Return all lines of a job that has ended."""
    return [line.text for line in LogReader(store, JOB).poll(LogCursor(), at_end=True)[0]]


def wait_until(holds: Callable[[], bool]) -> None:
    """Return once something holds; fail after ten seconds."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "waited for ten seconds"
        time.sleep(0.01)


def open_log(root: Path, store: MemoryStore | FaultyStore, text: bytes) -> LocalLog:
    """Return a local log with some output."""
    folder = root / "one"
    folder.mkdir(exist_ok=True)
    log = LocalLog(folder, store, Shipment(store.uri, FOLDER))
    log.output.write_bytes(text)
    return log


def test_output_of_the_process_and_its_children_is_shipped(store: MemoryStore, root: Path) -> None:
    """The redirection is below Python: C libraries and subprocesses write to the same fds."""
    with shipper(store, root):
        os.write(1, b"from the process\n")
        os.write(2, b"an error\n")
        subprocess.run(["echo", "from a child"], check=True)
        os.write(1, "ohne Zeilenende: ü".encode())
    assert lines_of(store) == [
        "from the process",
        "an error",
        "from a child",
        "ohne Zeilenende: ü",
    ]
    assert list(root.iterdir()) == []


def test_output_is_shipped_while_the_process_runs(store: MemoryStore, root: Path) -> None:
    """`logs -f` shows a running job, and the original output still shows everything too."""
    read_fd, write_fd = os.pipe()
    saved_fd = os.dup(1)
    os.dup2(write_fd, 1)
    try:
        with shipper(store, root):
            os.write(1, b"step 1\n")
            wait_until(lambda: lines_of(store) == ["step 1"])
            assert os.read(read_fd, 100) == b"step 1\n"
    finally:
        os.dup2(saved_fd, 1)
        for fd in (saved_fd, read_fd, write_fd):
            os.close(fd)


def test_lines_that_look_alike_all_stay(store: MemoryStore, root: Path) -> None:
    """Ray folds lines that differ in numbers only into one; a log must not."""
    with shipper(store, root):
        for _ in range(50):
            os.write(1, b"loss=0.5\n")
    assert lines_of(store) == ["loss=0.5"] * 50


def test_second_process_of_a_rank_adds_to_the_stream(store: MemoryStore, root: Path) -> None:
    """An actor that Ray restarts must not write over what the first one said."""
    for _ in range(2):
        with shipper(store, root):
            os.write(1, b"hello\n")
    assert lines_of(store) == ["hello", "hello"]


def test_crash_of_the_interpreter_is_brought_in(store: MemoryStore, root: Path) -> None:
    """The traceback of a crash is the one part of a log that everybody needs."""
    script = f"""
import os, sys
from pathlib import Path
from orchestrator.attempts.log_shipper import LogShipper
from orchestrator.store.keys import JobPaths
from tests.support.fakes import FaultyStore, MemoryStore
dead = FaultyStore(MemoryStore(), 1, dead=True)
paths = JobPaths({JOB.job_id!r}).attempt(1)
LogShipper(dead, paths, "worker", 0, every_s=0.05, root=Path({str(root)!r})).start()
print("about to crash")
os.abort()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False
    )
    assert ended.returncode != 0
    assert salvage(store, root) == 1
    lines = lines_of(store)
    assert lines[0] == "about to crash"
    assert "Fatal Python error: Aborted" in lines
    assert salvage(store, root) == 0


def test_log_of_a_living_process_is_not_salvaged(store: MemoryStore, root: Path) -> None:
    """Two processes that ship one file would double its lines."""
    with new_local_log(root, store, FOLDER) as log:
        log.output.write_bytes(b"still writing\n")
        assert salvage(store, root) == 0
    assert salvage(store, root) == 1
    assert lines_of(store) == ["still writing"]


def test_log_for_another_store_is_left_alone(store: MemoryStore, root: Path) -> None:
    """Two installations on one machine keep their jobs apart."""
    other = MemoryStore()
    other.address = "http://127.0.0.1:8333 memory://"
    with new_local_log(root, other, FOLDER) as log:
        log.output.write_bytes(b"not yours\n")
    assert salvage(store, root) == 0
    assert salvage(other, root) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 5))
def test_outage_neither_loses_nor_doubles_lines(
    store: MemoryStore, root: Path, fail_at: int, after: bool
) -> None:
    """A lost answer leaves open whether the piece is there; it must be there once."""
    faulty = FaultyStore(store, fail_at, after=after)
    log = open_log(root, faulty, b"")
    with log.output.open("ab") as output:
        for number in range(6):
            output.write(f"line {number}\n".encode())
            output.flush()
            try:
                log.ship(at_end=False)
            except StoreUnavailableError:
                continue
    log.ship(at_end=True)
    assert lines_of(store) == [f"line {number}" for number in range(6)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_salvage_goes_on_exactly_where_a_process_died(
    store: MemoryStore, root: Path, after: bool
) -> None:
    """A process may die between the put and its answer, or before the put."""
    faulty = FaultyStore(store, 3, after=after, dead=True)  # list, first piece, second piece
    with new_local_log(root, faulty, FOLDER) as log, log.output.open("ab") as output:
        output.write(b"first\n")
        output.flush()
        log.ship(at_end=False)
        output.write(b"second\nthird")
        output.flush()
        with pytest.raises(StoreUnavailableError):
            log.ship(at_end=False)
    assert salvage(store, root) == 1
    assert lines_of(store) == ["first", "second", "third"]


def test_dead_store_does_not_hold_up_the_end(store: MemoryStore, root: Path) -> None:
    """A worker ends within its patience, and what it could not ship stays for the next one."""
    with shipper(FaultyStore(store, 1, dead=True), root):
        os.write(1, b"kept here\n")
    assert lines_of(store) == []
    with shipper(store, root, rank=1):
        wait_until(lambda: lines_of(store) == ["kept here"])


def test_character_on_the_edge_of_a_piece_stays_whole(store: MemoryStore, root: Path) -> None:
    """Pieces are cut at bytes; a reader that decoded each for itself would garble the text."""
    text = "é" * PIECE_BYTES + "\n" + "ü" * 3 + "\n"
    open_log(root, store, b"x" + text.encode()).ship(at_end=True)
    assert len(store.objects) > 2
    assert lines_of(store) == ["x" + "é" * PIECE_BYTES, "üüü"]


def test_pieces_stay_small(store: MemoryStore, root: Path) -> None:
    """A rank that writes a gigabyte must not need one in memory."""
    open_log(root, store, b"a line of some length\n" * 50_000).ship(at_end=True)
    assert max(len(stored.body) for stored in store.objects.values()) <= PIECE_BYTES
    assert len(lines_of(store)) == 50_000


def test_secrets_are_not_shipped(
    store: MemoryStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read a log must not get the keys of the store and the cluster from it."""
    token = tmp_path / "token"
    token.write_text("ray-token-0123456789\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with shipper(store, root):
        os.write(1, b"begin\nkey=" + SECRET[:10].encode())
        wait_until(lambda: "begin" in lines_of(store))  # the half of a secret must not go with it
        os.write(1, SECRET[10:].encode() + b" token=ray-token-0123456789\n")
    assert lines_of(store) == ["begin", "key=*** token=***"]


def test_secret_on_the_edge_of_a_piece_is_not_shipped(
    store: MemoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless line is cut somewhere, but never through a secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for shift in range(0, 3 * len(SECRET), 5):
        body = b"x" * (PIECE_BYTES - 2 * len(SECRET) + shift) + SECRET.encode() + b"y" * 100
        open_log(root, store, body).ship(at_end=True)
        assert "".join(lines_of(store)) == body.decode().replace(SECRET, "***")
        store.objects.clear()


def test_short_values_are_no_secrets() -> None:
    """A test's key `any` must not blacken every `any` in a log."""
    assert secret_values({"AWS_SECRET_ACCESS_KEY": "any"}) == ()
    assert redacted(b"any", secret_values({"AWS_SECRET_ACCESS_KEY": "any"})) == b"any"


def put_piece(store: MemoryStore, attempt: int, stream: str, number: int, body: bytes) -> None:
    """Write one piece as a shipper would."""
    store.put(f"{JOB.attempt(attempt).logs}{stream}/{number:08d}.log", body)


def test_reader_goes_on_from_its_cursor(store: MemoryStore) -> None:
    """Each line is shown once, whole, while several ranks and attempts write."""
    reader = LogReader(store, JOB)
    assert reader.poll(LogCursor()) == ([], LogCursor())
    put_piece(store, 1, "worker-0", 1, b"one\ntw")
    put_piece(store, 1, "worker-1", 1, b"eins\n")
    lines, cursor = reader.poll(LogCursor())
    assert [(line.stream.rank, line.text) for line in lines] == [(0, "one"), (1, "eins")]
    put_piece(store, 1, "worker-0", 2, b"o\r\nthree")
    put_piece(store, 2, "driver-0", 1, b"again\n")
    lines, cursor = reader.poll(cursor)
    assert [(line.stream, line.text) for line in lines] == [
        (LogStream(1, "worker", 0), "two"),
        (LogStream(2, "driver", 0), "again"),
    ]
    assert reader.poll(cursor) == ([], cursor)
    assert [line.text for line in reader.poll(cursor, at_end=True)[0]] == ["three"]


def test_reader_shows_only_what_was_asked_for(store: MemoryStore) -> None:
    """`logs --rank 10 --attempt 2` on a job of many ranks."""
    for attempt in (1, 2):
        for rank in (0, 2, 10):
            put_piece(store, attempt, f"sample-worker-{rank}", 1, f"{attempt}.{rank}\n".encode())
    assert [stream.rank for stream in LogReader(store, JOB, attempt=2).streams()] == [0, 2, 10]
    only = LogReader(store, JOB, attempt=2, role="sample-worker", rank=10)
    assert [line.text for line in only.poll(LogCursor())[0]] == ["2.10"]


def test_tail_reads_only_the_end(store: MemoryStore) -> None:
    """A failed job shows its last lines without a gigabyte being fetched."""
    for number in range(1, 101):
        put_piece(store, 1, "worker-0", number, f"a{number}\nb{number}\n".encode())
    counting = FaultyStore(store, 0)
    tail = LogReader(counting, JOB).tail(LogStream(1, "worker", 0), 3)
    assert tail == ["b99", "a100", "b100"]
    assert counting.num_calls < 5
    assert read_log(store, ATTEMPT, "worker", 0, after=99) == (b"a100\nb100\n", 100)
