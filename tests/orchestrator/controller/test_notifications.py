"""The end of a job is posted at least once, and its address stays secret."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ddpm.config import TrainingConfig
from orchestrator.client.submit import submit_job
from orchestrator.controller.notifications import notify_all
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.sections import DatasetSpec, NotifySpec
from orchestrator.specs.train import TrainJob
from tests.support.fakes import MemoryStore


class Receiver:
    """A web server on loopback that answers as a test wants."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Take a message."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.append(json.loads(body))
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?key=secret"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A server that listens, its address in HOOK."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HOOK", receiver.url)
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


def cancelled_job(store: MemoryStore, url_env: str = "HOOK") -> str:
    """Submit a job that asks for a post, and end it."""
    spec = TrainJob(
        kind="train",
        name="a",
        dataset=DatasetSpec(source="digits"),
        training=TrainingConfig(num_steps=1),
        notify=NotifySpec(url_env=url_env),
    )
    job_id = submit_job(store, spec).job_id
    records = RecordStore(store)
    current = records.read(job_id)
    records.move(current, current.record.moved_to(JobState.CANCELLED, at=store.now()))
    return job_id


def test_an_end_is_posted_once_it_has_arrived(receiver: Receiver) -> None:
    """One message with an id, then no more."""
    store = MemoryStore()
    job_id = cancelled_job(store)
    notify_all(store)
    notify_all(store)
    assert [message["id"] for message in receiver.messages] == [f"{job_id}.0.CANCELLED"]
    assert not store.exists(Mark.NOTIFY.key(job_id))


def test_a_post_that_failed_is_tried_again_with_the_same_id(receiver: Receiver) -> None:
    """At least once: a receiver that was down must still hear of it."""
    store = MemoryStore()
    cancelled_job(store)
    receiver.status = 503
    notify_all(store)
    receiver.status = 200
    notify_all(store)
    assert len({message["id"] for message in receiver.messages}) == 1
    assert len(receiver.messages) == 2


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    """It could lead the message, or the token in the address, anywhere."""
    store = MemoryStore()
    cancelled_job(store)
    receiver.status = 302
    notify_all(store)
    assert len(receiver.messages) == 1


def test_only_https_leaves_the_machine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And no log ever shows the address."""
    monkeypatch.setenv("HOOK", "http://198.51.100.1/hook?key=secret")
    store = MemoryStore()
    with caplog.at_level("INFO"):
        job_id = cancelled_job(store)
        notify_all(store)
    assert "is not https" in caplog.text
    assert "secret" not in caplog.text + str(store.objects)
    assert not store.exists(Mark.NOTIFY.key(job_id))


@pytest.mark.parametrize(
    "address", ["https://[bad/", "https://host:44a/secret", "https://a..b/", "https://host/\u00e9"]
)
def test_an_address_that_is_none_silences_nobody_else(
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    """One job's typo would otherwise end the thread that posts for all."""
    store = MemoryStore()
    monkeypatch.setenv("TYPO", address)
    first = cancelled_job(store, "TYPO")
    cancelled_job(store)
    with caplog.at_level("INFO"):
        notify_all(store)
    assert len(receiver.messages) == 1
    assert not store.exists(Mark.NOTIFY.key(first))
    assert "TYPO is not usable" in caplog.text
    assert address not in caplog.text
