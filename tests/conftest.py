"""What holds for the whole test session."""

import os
from pathlib import Path

import pytest

# Ray reads this once in a process, at its first use; every stack that tests start asks for tokens.
os.environ["RAY_AUTH_MODE"] = "token"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests against real servers first, while this process has met no other Ray."""
    integration = Path(__file__).parent / "integration"
    items.sort(key=lambda item: integration not in item.path.parents)
