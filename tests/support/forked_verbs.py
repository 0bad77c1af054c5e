"""All verbs that look, called on a store in memory, each in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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
setup, mode, *verbs = sys.argv[1:]
exec(setup)
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


@dataclass(frozen=True)
class Done:
    """What a verb came to.

    Attributes:
        code: Its exit code.
        is_ascii: Whether it wrote ASCII alone.
        size_bytes: How much it wrote.
    """

    code: int
    is_ascii: bool
    size_bytes: int


def call_verbs(
    verbs: tuple[str, ...], *, is_read: bool = True, setup: str = "", **variables: str | None
) -> tuple[dict[str, Done], str]:
    """Return what each verb came to, and what all of them wrote to standard error.

    Args:
        verbs: Command lines.
        is_read: Whether somebody reads standard output; else the reader is gone at once.
        setup: Python that is run before the first verb.
        variables: Of the environment; None for one that is not there.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name, value in variables.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, setup, "read" if is_read else "gone", *verbs],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
    )
    errors = done.stderr.decode("utf-8", errors="replace")
    assert done.returncode == 0, errors
    rows = [line.split("\t") for line in done.stdout.decode("utf-8").splitlines()]
    found = {
        verbs[int(number)]: Done(int(code), ascii_ == "True", int(size))
        for number, code, ascii_, size in rows
    }
    return found, errors
