"""The proxy before the store does what a fault asks of it, and nothing else."""

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.nemesis.real.proxy import Proxy


class Answering(BaseHTTPRequestHandler):
    """A store that has one object."""

    asked = 0

    def do_GET(self) -> None:
        """Give it."""
        Answering.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"bytes")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before such a store."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Proxy(lambda: server.server_address[1])
    server.shutdown()
    server.server_close()


def asked(proxy: Proxy) -> tuple[int, bytes]:
    """Ask for the object."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request("GET", "/x")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_passes_on_before_and_after_a_fault(proxy: Proxy) -> None:
    """A fault has an end."""
    assert asked(proxy) == (200, b"bytes")
    proxy.disturb("500", 0.0)
    assert asked(proxy) == (200, b"bytes")


@pytest.mark.parametrize(("mode", "status"), [("500", 500), ("503", 503)])
def test_an_overloaded_store_does_nothing(proxy: Proxy, mode: str, status: int) -> None:
    """The request does not reach it."""
    before = Answering.asked
    proxy.disturb(mode, 60.0)
    assert asked(proxy)[0] == status
    assert Answering.asked == before


def test_a_lost_answer_is_that_of_a_request_that_was_done(proxy: Proxy) -> None:
    """One answer in three; that is what a put-if-absent meets itself by."""
    before = Answering.asked
    proxy.disturb("answers lost", 60.0)
    lost = 0
    for _ in range(9):
        try:
            asked(proxy)
        except (OSError, http.client.HTTPException):
            lost += 1
    assert lost >= 3
    assert Answering.asked == before + 9


def test_a_silent_store_answers_late(proxy: Proxy) -> None:
    """And not before its time is up."""
    proxy.disturb("silent", 1.0)
    assert asked(proxy) == (200, b"bytes")
    assert time.monotonic() >= proxy.until


def test_a_store_that_refuses_closes(proxy: Proxy) -> None:
    """Without a word."""
    proxy.disturb("refused", 60.0)
    with pytest.raises((OSError, http.client.HTTPException)):
        asked(proxy)
