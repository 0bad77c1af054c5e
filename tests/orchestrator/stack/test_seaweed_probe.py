"""The look at the embedded store depends on nothing but the store."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.stack.files import StackFolder, load_secrets
from orchestrator.stack.parts import BUCKET
from orchestrator.stack.ports import choose_ports
from orchestrator.stack.seaweed_probe import SeaweedProbe, database_of, probe_keys


def test_the_user_s_own_settings_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that is nowhere was a traceback while the store was being started."""
    monkeypatch.setenv("AWS_PROFILE", "no such profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "broken"))
    (tmp_path / "broken").write_text("[")
    (tmp_path / "secrets").mkdir()
    port = choose_ports(["store"], {})["store"]
    probe = SeaweedProbe(port, load_secrets(StackFolder(tmp_path)))
    assert not probe.keeps_objects()


@contextmanager
def a_store(broken: int | None) -> Iterator[int]:
    """Serve a store one of whose databases refuses all that is written; yield its port."""
    kept: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.answer(200)

        def do_GET(self) -> None:
            self.answer(200, kept[self.path])

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if database_of(self.path.removeprefix(f"/{BUCKET}/")) == broken:
                return self.answer(500)
            kept[self.path] = body
            return self.answer(200)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("broken", [None, *range(8)])
def test_a_store_that_refuses_a_part_of_its_keys_does_not_do_its_work(
    tmp_path: Path, broken: int | None
) -> None:
    """After a full disk one database of its index took nothing, and `up` saw nothing of it."""
    (tmp_path / "secrets").mkdir()
    with a_store(broken) as port:
        probe = SeaweedProbe(port, load_secrets(StackFolder(tmp_path)))
        assert probe.keeps_objects() is (broken is None)


def test_databases_are_those_that_seaweedfs_takes() -> None:
    """As seen in filerldb2/ of a store, whose folders tell where an object's entry is."""
    assert len({database_of(key) for key in probe_keys()}) == len(list(probe_keys())) == 8
    assert [database_of(f"store/{name}/x") for name in ("tracking", "orchestrator", "inbox")] == [
        1,
        1,
        1,
    ]
