"""`ddpmctl ui` as a process: the link that it prints opens the page, and Ctrl-C ends it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

DDPMCTL = Path(sys.executable).with_name("ddpmctl")
# Nothing listens there; what needs no store is served all the same.
STORE = {
    "DDPMCTL_STORE": "s3://bucket/jobs",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
}


@pytest.mark.slow
def test_the_printed_link_opens_the_page_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    """A folder of this name in the current one is none of ours."""
    (tmp_path / "orchestrator").mkdir()
    serving = subprocess.Popen(
        [DDPMCTL, "ui", "-o", "json"],
        cwd=tmp_path,
        env={**os.environ, **STORE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert serving.stdout is not None
    address = json.loads(serving.stdout.readline())["url"]
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar())
    )
    style = address.replace("/?", "/ui.css?")
    with opener.open(style, timeout=60) as answer:
        assert "color-scheme" in answer.read().decode()
        assert "token" not in answer.url
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            style.partition("?")[0], timeout=60
        )
    serving.send_signal(signal.SIGINT)
    _, errors = serving.communicate(timeout=60)
    assert "Traceback" not in errors
    assert serving.returncode == 0


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """Another page may have it already."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [DDPMCTL, "ui", "--port", port],
            cwd=tmp_path,
            env={**os.environ, **STORE},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} cannot be used: ")
    assert "--port" in done.stderr
    assert len(done.stderr.splitlines()) == 1
