"""A real browser shows the pages without a complaint, in the dark and on a phone, and by keys."""

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from orchestrator.ui.access import Access
from orchestrator.ui.app import build_app
from orchestrator.ui.looks import Looks
from tests.support.ui import busy_world, links_of

pytestmark = pytest.mark.slow
# What the browser found, written into the page where `--dump-dom` shows it.
LOOK = """addEventListener("load", () => setTimeout(() => {
  const key = name => (document.activeElement || document.body).dispatchEvent(
    new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
  key("j"); key("j"); key("k");
  document.body.dataset.found = JSON.stringify({
    images: [...document.images].map(i => i.complete && i.naturalWidth > 0),
    plots: [...document.querySelectorAll("svg[role=img]")].map(p => p.clientWidth > 100),
    cut: [...document.querySelectorAll("caption, td, tbody th")]
      .map(c => c.getBoundingClientRect())
      .filter(c => c.right > innerWidth || c.width < 15 && c.height > 30).length,
    wide: document.documentElement.scrollWidth - innerWidth,
    focus: document.activeElement.id,
    paper: getComputedStyle(document.body).backgroundColor,
    note: document.getElementById("note").textContent,
  });
}, 4000))"""


class Looking:
    """The page with a script of the test's own behind its own."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        is_script = scope.get("path") == "/ui.js"

        async def sent(message: dict[str, Any]) -> None:
            if is_script and message["type"] == "http.response.start":
                kept = [(k, v) for k, v in message["headers"] if k != b"content-length"]
                message = {**message, "headers": kept}
            if is_script and message.get("body"):
                message = {**message, "body": message["body"] + LOOK.encode()}
            await send(message)

        await self._app(scope, receive, sent)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The first link to a page, served from this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    access = Access.fresh(listening.getsockname()[1])
    app = Looking(build_app(Looks(busy_world().store, links_of), access))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    serving.start()
    yield f"http://127.0.0.1:{access.port}{{path}}?token={access.token}"
    server.should_exit = True
    serving.join()
    listening.close()


def shown(address: str, path: str, profile: Path, *options: str) -> dict[str, Any]:
    """Return what a browser found on a page, once it has complained of nothing."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here: apt-get install chromium")
    safe = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    log = (f"--user-data-dir={profile}", "--enable-logging=stderr")
    done = subprocess.run(
        [
            *(chromium, *safe, *log, *options),
            *("--virtual-time-budget=8000", "--dump-dom", address.format(path=path)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    told = re.search(r'data-found="([^"]*)"', done.stdout)
    assert told is not None, done.stdout[-2000:]
    found: dict[str, Any] = json.loads(told[1].replace("&quot;", '"'))
    assert all(found["images"])
    assert all(found["plots"])
    assert found["wide"] <= 0
    assert found["note"] == ""
    return found


def test_the_first_page_is_readable_and_goes_by_keys(address: str, tmp_path: Path) -> None:
    """j, j, k: the second job, then the first one again."""
    found = shown(address, "/", tmp_path, "--window-size=1200,900")
    assert found["focus"] == "row-works-1"
    assert found["paper"] == "rgb(255, 255, 255)"


def test_a_job_shows_its_plots_and_pictures(address: str, tmp_path: Path) -> None:
    """Through the policy that the server sends, in a browser that obeys it."""
    found = shown(address, "/jobs/works-1", tmp_path, "--window-size=1200,3000")
    assert len(found["plots"]) == 2
    assert len(found["images"]) == 2


def test_a_set_fits_a_phone_in_the_dark(address: str, tmp_path: Path) -> None:
    """500 pixels is the narrowest window that the browser opens."""
    options = ("--window-size=500,9000", "--blink-settings=preferredColorScheme=0")
    found = shown(address, "/jobs/set-1/set", tmp_path, *options)
    assert len(found["images"]) == 100
    assert found["paper"] == "rgb(22, 24, 27)"


@pytest.mark.parametrize("path", ["/", "/jobs/works-1"])
def test_a_phone_shows_every_cell_of_a_table(address: str, tmp_path: Path, path: str) -> None:
    """States and reasons lay to the right of the screen, where nobody scrolls."""
    found = shown(address, path, tmp_path, "--window-size=500,900")
    assert found["wide"] <= 0
    assert found["cut"] == 0
