"""A request goes to one address, once, and comes back as an answer or one of two errors."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from orchestrator.cluster.http_client import Answer, ask


class _Handler(BaseHTTPRequestHandler):
    """Sends on who asks for /moved, and says what it was sent."""

    asked: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_POST(self) -> None:
        """Answer with the body."""
        self.asked.append((self.command, self.path, self.headers.get("Content-Type")))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Answer in the same way."""
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on loopback, behind a proxy that does not exist."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(_Handler, "asked", [])
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_request_goes_straight_to_its_address(address: str) -> None:
    """Past the proxy, and with path, query, body and headers."""
    headers = {"Content-Type": "text/x"}
    answer = ask(f"{address}/a?b=c#d", method="POST", body=b"hi", headers=headers, timeout_s=5)
    assert answer == Answer(200, b"hi")
    assert _Handler.asked == [("POST", "/a?b=c", "text/x")]
    assert ask(address, method="POST", body=b"hi", timeout_s=5, reads_body=False).body == b""


def test_a_redirect_is_an_answer(address: str) -> None:
    """What is posted to one address must not go to another."""
    assert ask(f"{address}/moved", timeout_s=5).status == 302
    assert [path for _, path, _ in _Handler.asked] == ["/moved"]


@pytest.mark.parametrize("url", ["", "ftp://a/b", "http://", "http://a:port/", "ray://a:1"])
def test_an_address_that_cannot_be_asked_is_told_apart_from_silence(url: str) -> None:
    """The one is to be mended, the other to be waited for."""
    with pytest.raises(ValueError, match=r".*"):
        ask(url, timeout_s=1)


def test_silence_and_what_is_no_http_are_one_error() -> None:
    """Callers ask again in both cases."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer_badly, args=(server,), daemon=True)
        thread.start()
        with pytest.raises(OSError, match="no HTTP"):
            ask(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_s=5)
        thread.join()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            ask(f"http://127.0.0.1:{free.getsockname()[1]}/", timeout_s=5)


def _answer_badly(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(b"SSH-2.0-x\r\n")
