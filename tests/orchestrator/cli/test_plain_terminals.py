"""Terminals that know ASCII alone, and readers that go away: one line at most, no traceback."""

from typing import Any

import pytest

from tests.support.forked_verbs import Done, call_verbs

pytestmark = pytest.mark.slow
VERBS = (
    "list",
    "list -o wide",
    "list -o yaml",
    "list -o json",
    "status ä-1",
    "status a-1",
    "status a-1 -o json",
    "events",
    "events a-1",
    "events a-1 -o json",
    "explain a-1",
    "logs a-1",
    "top --once",
    "top -o json",
    "diff a-1 b-1",
    "resubmit a-1 --dry-run",
    "queue show",
    "samples verify set-1",
    "datasets list",
    "wait b-1 --timeout-s 0",
    "schema",
    "explain-field training",
    "completion bash",
    "help",
    "help --man",
    "nonsense",
)


@pytest.fixture(scope="module")
def in_c() -> tuple[dict[str, Done], str]:
    """Each verb under LANG=C, without Python's own mending of that."""
    plain: dict[str, Any] = {
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    return call_verbs(VERBS, **plain, PYTHONIOENCODING="ascii")


def test_a_terminal_of_ascii_gets_ascii_and_no_traceback(
    in_c: tuple[dict[str, Done], str],
) -> None:
    """LANG=C is what containers and cron have."""
    found, errors = in_c
    assert found.keys() == {*VERBS}
    assert "Traceback" not in errors
    assert "a fault of ddpmctl" not in errors
    assert [verb for verb, done in found.items() if not done.is_ascii] == []


def test_verbs_do_what_they_do_elsewhere(
    in_c: tuple[dict[str, Done], str],
) -> None:
    """A verb that fails for its letters alone would pass as one that had nothing to say."""
    wrong = {"status ä-1": 2, "nonsense": 2, "wait b-1 --timeout-s 0": 101}
    codes = {verb: done.code for verb, done in in_c[0].items()}
    assert codes == {verb: wrong.get(verb, 0) for verb in VERBS}


def test_a_reader_that_went_away_is_no_fault() -> None:
    """`ddpmctl list | head -1` is said every day."""
    found, errors = call_verbs(VERBS, is_read=False)
    assert found.keys() == {*VERBS}
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert "a fault of ddpmctl" not in errors
