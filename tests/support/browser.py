"""Opens pages in a headless Chromium."""

import html
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_COMPLAINT = re.compile(r":(ERROR|WARNING|INFO):CONSOLE[:(]\d+\)?\] (.*)")
# On a crowded machine the page's clock may run out before the first byte, or a picture, came.
_OPENED_AT_MOST = 5


@dataclass(frozen=True)
class Opened:
    """A page as the browser had it in the end.

    Attributes:
        dom: Its elements, as HTML.
        complaints: What stood in the console, a line each.
    """

    dom: str
    complaints: list[str]

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces."""
        bare = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", self.dom, flags=re.DOTALL)
        return " ".join(html.unescape(bare).split())


def open_page(address: str, profile: Path, *, within_ms: int = 2000, awaited: str = "") -> Opened:
    """Open a page and wait until it has loaded; skips the test where there is no Chromium.

    Args:
        address: Where it is.
        profile: A folder for the browser's own files.
        within_ms: What the page's own clock may run to.
        awaited: A pattern in the page's HTML that comes last; the page is opened again while it
            is missing, a few times, and returned as it is then.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here: apt-get install chromium")
    flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "dump-dom"]
    flags += [f"user-data-dir={profile}", "enable-logging=stderr", "window-size=1200,900"]
    command = [chromium, *(f"--{flag}" for flag in flags)]
    command += [f"--virtual-time-budget={within_ms}", address]
    for _ in range(_OPENED_AT_MOST):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        opened = Opened(done.stdout, [found[2] for found in _COMPLAINT.finditer(done.stderr)])
        if opened.text and re.search(awaited, opened.dom):
            break
    return opened
