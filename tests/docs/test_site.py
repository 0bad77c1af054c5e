"""The documents: short at the top, built strictly, with nothing loaded from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 10 * 1024
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
_LOADED = re.compile(
    r"<(?:script|link|img|source|iframe)\b[^>]*\b(?:src|href)=\"?(https?:)?//", re.IGNORECASE
)
_STYLE_URL = re.compile(r"url\(\s*[\"']?(?:https?:)?//", re.IGNORECASE)


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_what_is_read_first_is_short(name: str) -> None:
    """A stranger gives up at the third screen of figures."""
    assert len((ROOT / name).read_bytes()) <= MAX_BYTES


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_front_pages_lead_somewhere(name: str) -> None:
    """The strict build looks at docs/ alone."""
    text = (ROOT / name).read_text("utf-8")
    assert [link for link in _LINK.findall(text) if not (ROOT / link).exists()] == []


def test_modules_that_documents_name_are_there() -> None:
    """A page that sends a reader to a file that moved is worse than none."""
    pages = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(
            r"`((?:ddpm|orchestrator|tests)/[\w/]+\.py)", page.read_text("utf-8")
        )
    }
    assert {(page, path) for page, path in named if not (ROOT / path).exists()} == set()


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """A dead link is an error, and a page must read the same without a network."""
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    loading = [p.name for p in pages if _LOADED.search(p.read_text("utf-8"))]
    styles = [p.name for p in tmp_path.rglob("*.css") if _STYLE_URL.search(p.read_text("utf-8"))]
    assert (loading, styles) == ([], [])
