"""Terminals that know ASCII alone, and readers that go away: one line at most, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
VERBS = (
    "list",
    "list -o wide",
    "list -o yaml",
    "list -o json",
    "status ä-1",
    "status a-1",
    "status a-1 -o json",
    "events",
    "events a-1",
    "events a-1 -o json",
    "explain a-1",
    "logs a-1",
    "top --once",
    "top -o json",
    "diff a-1 b-1",
    "resubmit a-1 --dry-run",
    "queue show",
    "samples verify set-1",
    "datasets list",
    "wait b-1 --timeout-s 0",
    "schema",
    "explain-field training",
    "completion bash",
    "help",
    "help --man",
    "nonsense",
)
# Calls each verb in a child of one process that has loaded all it needs: a start costs a second.
PROGRAM = r"""
import os, sys
import numpy as np
from orchestrator.cli.main import main
from orchestrator.client import surroundings
from orchestrator.client.submit import submit_job
from tests.support.sample_sets import put_set
from tests.support.world import World, train_job

for name in main.list_commands(None):
    main.get_command(None, name)
world = World()
surroundings.open_store = lambda _uri: world.store
os.environ["DDPMCTL_STORE"] = "s3://bucket/jobs"
submit_job(world.store, train_job("a", workers=64), "a-1")
submit_job(world.store, train_job("b", workers=64, queue="other"), "b-1")
put_set(world.store, "set-1", np.zeros((8, 4, 4, 1), np.uint8), 4)
world.step(2)
mode, *verbs = sys.argv[1:]
for number, verb in enumerate(verbs):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read) if mode == "read" else None
        os.dup2(write, 1)
        os.close(write)
        sys.argv = ["ddpmctl", *verb.split()]
        if mode == "gone":
            os.close(read)
        try:
            main(prog_name="ddpmctl")
        except SystemExit as end:
            os._exit(end.code or 0)  # nothing of the many modules is put away one by one
    os.close(write)
    if mode == "gone":
        os.close(read)
        out = b""
    else:
        with open(read, "rb") as stream:
            out = stream.read()
    _, status = os.waitpid(child, 0)
    print(f"{number}\t{os.waitstatus_to_exitcode(status)}\t{out.isascii()}\t{len(out)}", flush=True)
"""


def call(mode: str, **variables: str) -> tuple[dict[str, tuple[int, bool, int]], str]:
    """Return of each verb its exit code, whether it wrote ASCII, and how much; and all errors."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode, *VERBS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        check=True,
    )
    rows = [line.split("\t") for line in done.stdout.decode("utf-8").splitlines()]
    found = {
        VERBS[int(number)]: (int(code), ascii_ == "True", int(size))
        for number, code, ascii_, size in rows
    }
    return found, done.stderr.decode("utf-8", errors="replace")


@pytest.fixture(scope="module")
def in_c() -> tuple[dict[str, tuple[int, bool, int]], str]:
    """Each verb under LANG=C, without Python's own mending of that."""
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return call("read", **plain, PYTHONIOENCODING="ascii")


def test_a_terminal_of_ascii_gets_ascii_and_no_traceback(
    in_c: tuple[dict[str, tuple[int, bool, int]], str],
) -> None:
    """LANG=C is what containers and cron have."""
    found, errors = in_c
    assert found.keys() == {*VERBS}
    assert "Traceback" not in errors
    assert "a fault of ddpmctl" not in errors
    assert [verb for verb, (_, is_ascii, _) in found.items() if not is_ascii] == []


def test_verbs_do_what_they_do_elsewhere(
    in_c: tuple[dict[str, tuple[int, bool, int]], str],
) -> None:
    """A verb that fails for its letters alone would pass as one that had nothing to say."""
    wrong = {"status ä-1": 2, "nonsense": 2, "wait b-1 --timeout-s 0": 101}
    codes = {verb: code for verb, (code, _, _) in in_c[0].items()}
    assert codes == {verb: wrong.get(verb, 0) for verb in VERBS}


def test_a_reader_that_went_away_is_no_fault() -> None:
    """`ddpmctl list | head -1` is said every day."""
    found, errors = call("gone")
    assert found.keys() == {*VERBS}
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert "a fault of ddpmctl" not in errors
