"""A real browser shows the report without a complaint, with every picture in it."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from orchestrator.client.report.page import report_page
from orchestrator.client.results import read_evaluations
from tests.support.browser import open_page
from tests.support.evaluations import put_evaluation
from tests.support.fakes import MemoryStore
from tests.support.sample_sets import put_set

# What the browser found, written into the page where `--dump-dom` shows it.
LOOK = """<script>addEventListener("load", () => {
  const images = [...document.images].map(i => i.complete && i.naturalWidth > 0);
  const plots = [...document.querySelectorAll("svg[role=img]")].map(p => p.clientWidth > 100);
  const wide = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.found = JSON.stringify({images, plots, wide});
})</script>"""


@pytest.mark.slow
def test_a_browser_shows_every_picture_and_complains_of_nothing(tmp_path: Path) -> None:
    """What a parser takes for a page may still be one that nobody can read."""
    store = MemoryStore()
    for number in (1, 2):
        put_set(store, f"set-{number}", np.zeros((8, 4, 4, 1), np.uint8), 4 * number)
        put_evaluation(store, f"e{number}", f"set-{number}", 0.01 * number)
    at = datetime(2026, 11, 28, tzinfo=UTC)
    page = report_page(store, read_evaluations(store, ["e1", "e2"]).rows, at)
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", f"{LOOK}</body>"), "utf-8")
    opened = open_page(file.as_uri(), tmp_path / "profile")
    assert opened.complaints == []
    told = re.search(r'data-found="([^"]*)"', opened.dom)
    assert told is not None
    found = json.loads(told[1].replace("&quot;", '"'))
    assert found["images"] == [True] * 4
    assert len(found["plots"]) >= 4
    assert all(found["plots"])
    assert found["wide"] <= 0
