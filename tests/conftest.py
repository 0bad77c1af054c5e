"""What holds for the whole test session."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

# Ray reads this once in a process, at its first use; every stack that tests start asks for tokens.
os.environ["RAY_AUTH_MODE"] = "token"

# How long a test takes says nothing on a machine that others share.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

if "PYTEST_XDIST_WORKER" in os.environ:  # its neighbours need the other cores
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests against real servers first, while this process has met no other Ray."""
    integration = Path(__file__).parent / "integration"
    items.sort(key=lambda item: integration not in item.path.parents)
