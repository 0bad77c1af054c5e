"""What `submit` shows while it reads a large source."""

import sys

import pytest

from orchestrator.cli import reading_bar
from orchestrator.cli.reading_bar import ReadingBar


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show every image."""
    monkeypatch.setattr(reading_bar, "PLAIN_EVERY_S", -1.0)
    monkeypatch.setattr(reading_bar, "SHOW_EVERY_S", -1.0)


def test_where_no_terminal_is_lines_say_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A log of a night shows that something happens."""
    with ReadingBar(silent=False) as bar:
        bar.show(1000, 100_000)
        bar.say("100000 images taken")
    assert capsys.readouterr().err.splitlines() == [
        "1,000 of 100,000 images are read",
        "100000 images taken",
    ]


def test_programs_are_told_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """They read what was taken and left out."""
    with ReadingBar(silent=True) as bar:
        bar.show(1000, 100_000)
        bar.say("taken")
    assert capsys.readouterr().err == "taken\n"


def test_on_a_terminal_a_bar_goes_when_its_source_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of the next source, or of an error, must stand by itself."""
    with ReadingBar(silent=False) as bar:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        bar.show(50, 100)
        bar.show(60, 100)
        bar.say("taken")
    told = capsys.readouterr().err
    assert "60/100" in told
    assert told.endswith("taken\n")
