"""Clusters on hosts of their own; skipped where hosts cannot be made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import QUICK_TO_NOTICE, Cluster
from tests.hosts.namespaces import why_not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder; skip all with a word where there can be no hosts."""
    own = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = why_not() if own else ""
    for item in own:
        item.add_marker(pytest.mark.integration)
        item.add_marker(pytest.mark.slow)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The parts on hosts of their own with two workers, and a host with the command line alone."""
    made = Cluster(tmp_path_factory.mktemp("hosts"))
    try:
        made.up(num_workers=2, **QUICK_TO_NOTICE)
        yield made
    finally:
        made.close()
