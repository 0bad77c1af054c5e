"""One embedded stack for all integration tests of a session, with its own folder and ports."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.stack.embedded import Stack, StackInfo
from orchestrator.stack.files import StackFolder
from tests.support.own_networks import install_example

NUM_LOGICAL_GPUS = 0
NUM_LOGICAL_CPUS = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The session's own stack, running; ended with the session."""
    folder = tmp_path_factory.mktemp("stack") / ".ddpmctl"
    site = install_example(tmp_path_factory.mktemp("site"))
    stack = Stack(folder, num_cpus=NUM_LOGICAL_CPUS, num_gpus=NUM_LOGICAL_GPUS)
    with pytest.MonkeyPatch.context() as patch:
        # Where the network of another package is installed, for this process and all of Ray's.
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        try:
            stack.up()
            yield stack
        finally:
            stack.down()
            shutil.rmtree(StackFolder(folder.resolve()).sockets, ignore_errors=True)


@pytest.fixture(scope="module")
def stack_info(stack: Stack) -> Iterator[StackInfo]:
    """How the session's stack is reached; `os.environ` says the same during the module."""
    info = stack.info()
    assert info is not None
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_", "MLFLOW_"))]:
            patch.delenv(name)
        for name, value in info.environment.items():
            patch.setenv(name, value)
        yield info
