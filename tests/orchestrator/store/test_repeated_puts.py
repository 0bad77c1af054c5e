"""A put whose answer is lost is sent again by the client, and meets itself."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import botocore.session
import pytest
from botocore.config import Config

from orchestrator.errors import ConditionFailedError
from orchestrator.store.s3_store import S3Store


class ForgetfulServer(ThreadingHTTPServer):
    """Keeps one object, and hangs up before it answers a first put.

    Attributes:
        kept: The object.
        loses: How many answers are lost yet.
        other: What somebody else writes right after a lost answer; b"" for nobody.
    """

    kept = b""
    loses = 1
    other = b""


class Handler(BaseHTTPRequestHandler):
    """Puts under If-None-Match, and gets."""

    server: ForgetfulServer

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def do_PUT(self) -> None:
        """Keep what is sent, unless something is kept already."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.kept:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.kept = body
        if self.server.loses:
            self.server.loses -= 1
            self.server.kept = self.server.other or body
            self.close_connection = True
            return
        self._answer(b"")

    def do_GET(self) -> None:
        """Return what is kept."""
        self._answer(self.server.kept)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sun, 29 Nov 2026 08:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[ForgetfulServer]:
    """A server on this machine."""
    with ForgetfulServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def store_at(server: ForgetfulServer) -> S3Store:
    """Return a store whose client tries twice."""
    client = botocore.session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(
            retries={"mode": "standard", "max_attempts": 2},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    return S3Store(cast("Any", client), "b", "")


@pytest.mark.slow
def test_a_put_that_is_sent_again_is_done_not_turned_away(server: ForgetfulServer) -> None:
    """A request of a user was told to be somebody else's, and a group lost an event."""
    assert store_at(server).put("k", b"mine", if_absent=True) == '"1"'
    assert server.loses == 0


@pytest.mark.slow
def test_what_another_one_wrote_is_theirs(server: ForgetfulServer) -> None:
    """A put that met another body was turned away indeed, sent again or not."""
    server.other = b"theirs"
    with pytest.raises(ConditionFailedError):
        store_at(server).put("k", b"mine", if_absent=True)
    server.other, server.kept, server.loses = b"", b"mine", 0
    with pytest.raises(ConditionFailedError):  # nothing was lost: an equal body is another's
        store_at(server).put("k", b"mine", if_absent=True)
