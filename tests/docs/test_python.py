"""What the page on Python shows is what happens."""

import ast
import doctest
import re
from pathlib import Path

import pytest

from orchestrator import api

PAGE = Path(__file__).resolve().parents[2] / "docs/guides/python.md"


def test_the_mathematics_alone_trains_samples_and_saves_as_the_page_shows(tmp_path: Path) -> None:
    """These are the first lines that somebody copies."""
    found = doctest.testfile(
        str(PAGE), module_relative=False, globs={"folder": tmp_path}, raise_on_error=True
    )
    assert found.attempted > 10
    assert (tmp_path / "images.npy").stat().st_size > 16 * 64


def test_the_page_calls_what_there_is() -> None:
    """A name that was changed since would fail in the reader's hands alone."""
    text = PAGE.read_text("utf-8")
    code = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert code
    for block in code:
        ast.parse(block)
    for owner, name in re.findall(r"\b(client|job)\.(\w+)\(", text):
        assert hasattr({"client": api.Client, "job": api.JobHandle}[owner], name), name


@pytest.mark.parametrize("name", api.__all__)
def test_what_the_room_offers_has_a_description(name: str) -> None:
    """`help(Client)` is read more often than the page."""
    assert getattr(api, name).__doc__
