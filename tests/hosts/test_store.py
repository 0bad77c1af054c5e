"""The real store, alone on a host, and who asks it from another one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import STORE, Cluster
from tests.hosts.user import CLI, wait_until

_WRITER = """
import itertools, logging, threading
from orchestrator.store.s3_store import open_store
from orchestrator.store.outages import Backoff, outlast_outage
logging.basicConfig(format="%(message)s")
store, backoff = open_store("s3://ddpmctl/store"), Backoff(first_s=0.2, longest_s=1.0)
for number in itertools.count(1):
    body = str(number).encode()
    outlast_outage(lambda: store.put("counter", body), backoff, threading.Event())
    print("wrote", number, flush=True)
    threading.Event().wait(0.2)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """The store's host and one that asks it; no Ray."""
    made = Cluster(tmp_path)
    try:
        made.boot(STORE)
        made.boot(CLI)
        made.start_store()
        yield made
    finally:
        made.close()


def test_credentials_that_are_refused_for_a_while_are_waited_for(cluster: Cluster) -> None:
    """As when a key is replaced in the store first and on the nodes later: nobody gives up."""
    command = (sys.executable, "-c", _WRITER)
    writer = cluster.network.hosts[CLI].start(command, cluster.environment(), "writer")
    wait_until(lambda: "wrote 1" in writer.text)
    cluster.parts[STORE].kill()
    cluster.start_store(AWS_ACCESS_KEY_ID="another", AWS_SECRET_ACCESS_KEY="another-secret")
    wait_until(lambda: "taken back (InvalidAccessKeyId)" in writer.text)
    assert cluster.ddpmctl("list").exit_code == 1  # this one comes with a key that never was good
    cluster.parts[STORE].kill()
    written = writer.text.count("wrote")
    cluster.start_store()
    wait_until(lambda: writer.text.count("wrote") > written + 1)
    assert writer.is_alive


@pytest.mark.hosts
def test_a_store_that_is_cut_off_is_waited_for(cluster: Cluster) -> None:
    """No answer at all, not even a refusal: the writer goes on once the link is back."""
    command = (sys.executable, "-c", _WRITER)
    writer = cluster.network.hosts[CLI].start(command, cluster.environment(), "writer")
    wait_until(lambda: "wrote 1" in writer.text)
    cluster.network.cut(STORE)
    wait_until(lambda: "trying again" in writer.text, timeout_s=200.0)
    written = writer.text.count("wrote")
    cluster.network.join(STORE)
    wait_until(lambda: writer.text.count("wrote") > written + 1, timeout_s=200.0)
