"""What ends a thread is met by its owner."""

import threading

import pytest

from orchestrator.errors import BadInputError
from orchestrator.store.keys import JobPaths
from orchestrator.store.watched_thread import WatchedThread
from orchestrator.tracking.writer import MetricWriter
from tests.support.fakes import MemoryStore


def test_what_ended_a_thread_is_raised_where_its_owner_asks() -> None:
    """It ended without a word, and a stop was never heard or metrics stopped."""
    woken = threading.Event()

    def fail() -> None:
        raise BadInputError("the store has no bucket")

    thread = WatchedThread(fail, "t", woken.set)
    thread.start()
    thread.join()
    assert woken.is_set()
    with pytest.raises(BadInputError, match="no bucket"):
        thread.raise_failure()


def test_a_thread_that_did_its_work_raises_nothing() -> None:
    """Its end is no failure."""
    thread = WatchedThread(lambda: None, "t")
    thread.start()
    thread.join()
    thread.raise_failure()


class BucketlessStore(MemoryStore):
    """A store whose bucket somebody removed: an error that waiting does not cure."""

    def put(self, key: str, body: bytes, **condition: object) -> str:
        """Refuse."""
        raise BadInputError("the store has no bucket")


def test_metrics_that_can_not_be_written_any_more_end_the_attempt() -> None:
    """A checkpoint waits for them: in vain, for its whole patience."""
    writer = MetricWriter(BucketlessStore(), JobPaths("j").attempt(1), every_s=60)
    writer.log(1, {"loss": 1.0})
    with pytest.raises(BadInputError, match="no bucket"):
        writer.flush()
    with pytest.raises(BadInputError, match="no bucket"):
        writer.log(2, {"loss": 1.0})
