"""What holds for the whole test session."""

import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A test and the jobs it starts share their cores with other tests. OpenMP's threads spin by default
# until the last one comes, which then waits for the core that they hold: two threads took 15 times
# as long as one. Read when torch is loaded, here and in what the stacks of tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from orchestrator.stack.embedded import Stack

# Ray reads this once in a process, at its first use; every stack that tests start asks for tokens.
os.environ["RAY_AUTH_MODE"] = "token"

# How long a test takes says nothing on a machine that others share.
hypothesis.settings.register_profile("untimed", deadline=None)
# `make check` asks for fewer examples of what is drawn at random, see tests/support/examples.py.
hypothesis.settings.register_profile("quick", deadline=None)
hypothesis.settings.load_profile("untimed")

if "PYTEST_XDIST_WORKER" in os.environ:  # its neighbours need the other cores
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests against real servers first, while this process has met no other Ray."""
    integration = Path(__file__).parent / "integration"
    items.sort(key=lambda item: integration not in item.path.parents)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """End the stack of a process that died in the middle of a test."""
    if error:
        base = node.config._tmp_path_factory.getbasetemp()  # noqa: SLF001
        for folder in base.glob(f"popen-{node.gateway.id}/stack*/.ddpmctl"):
            Stack(folder).down()
