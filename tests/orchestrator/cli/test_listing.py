"""Tables that fit the terminal, and the filters of `list`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from orchestrator.cli import terminal
from orchestrator.cli.listing import Duration, Wanted, job_table, none_of
from orchestrator.client.describe import child_text, progress_text
from orchestrator.client.status import ListedJob
from orchestrator.jobs.progress import ChildEntry
from orchestrator.lifecycle.state import JobState

NOW = datetime.now(UTC)
LONG = "cifar10-cosine-bf16-lr2e4-20261122-153012-k7q2"


def job(job_id: str = LONG, **changes: Any) -> ListedJob:
    """Return a job as `list` reads it."""
    values: dict[str, Any] = {
        "job_id": job_id,
        "kind": "train",
        "name": job_id.split("-2026")[0],
        "state": JobState.RUNNING,
        "attempt": 2,
        "submitted_at": NOW - timedelta(hours=2),
        "changed_at": NOW - timedelta(hours=1),
        "confirmed_at": NOW,
        "done": 1200,
        "total": 2000,
        "unit": "steps",
        "rate_per_s": 14.2,
        **changes,
    }
    return ListedJob(**values)


JOBS = [
    job(),
    job("digits", state=JobState.QUEUED, reason="WAITING_FOR_CAPACITY", position=3, done=0),
    job("old", state=JobState.FAILED, reason="OUT_OF_MEMORY", stale=False),
    job("lost", stale=True, confirmed_at=NOW),
]


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120, 200])
def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """A table that is broken over lines is none."""
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = click.unstyle(job_table(JOBS)).splitlines()
    assert len(lines) == len(JOBS) + 1
    assert max(len(line) for line in lines) <= columns
    assert "STATE" in lines[0]
    assert "RUNNING" in lines[1]
    assert "QUEUED" in lines[2]


def test_a_table_without_a_terminal_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes into a file or to grep."""
    monkeypatch.delenv("COLUMNS", raising=False)
    text = job_table(JOBS)
    assert LONG in text
    assert "QUEUED (WAITING_FOR_CAPACITY, #3 in line)" in text


def test_a_terminal_that_knows_ascii_alone_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """LANG=C must not end in an error, or in question marks."""
    monkeypatch.setattr(terminal, "_knows", lambda _: False)
    assert terminal.shortened(LONG, 20).isascii()
    assert len(terminal.shortened(LONG, 20)) == 20


def test_states_have_colours_and_plain_text_stays_as_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour is added to aligned text, not counted."""
    monkeypatch.setenv("COLUMNS", "100")
    text = job_table(JOBS)
    assert click.style("RUNNING", fg="blue")[:5] in text
    assert max(len(line) for line in click.unstyle(text).splitlines()) <= 100


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (Wanted(), 4),
        (Wanted(states=frozenset({"QUEUED", "FAILED"})), 2),
        (Wanted(kinds=frozenset({"sample"})), 0),
        (Wanted(name="d*"), 1),
        (Wanted(name="cifar10-*"), 1),
        (Wanted(since=NOW - timedelta(minutes=5)), 0),
        (Wanted(since=NOW - timedelta(hours=3)), 4),
        (Wanted(queue="default"), 4),
        (Wanted(owner="me"), 0),
    ],
)
def test_filters_take_what_they_say(wanted: Wanted, shown: int) -> None:
    """Each alone; together all must hold."""
    assert len([one for one in JOBS if wanted.takes(one)]) == shown


def test_a_kind_or_a_queue_that_no_job_has_is_told_from_one_that_has_none_now() -> None:
    """A slip of the pen must not look like an empty queue."""
    kinds = ", ".join(sorted({one.kind for one in JOBS}))
    assert none_of(JOBS, Wanted(kinds=frozenset({"trian"}))) == (
        f"no such jobs; there are jobs of kind {kinds}"
    )
    assert none_of(JOBS, Wanted(queue="defualt")).endswith("of queue default")
    assert none_of(JOBS, Wanted(queue="default", owner="me")) == "no such jobs"
    assert none_of([], Wanted(queue="default")) == "no such jobs"
    assert none_of([], Wanted()) == "no jobs"


def test_durations_are_written_with_a_unit() -> None:
    """A bare number might mean anything."""
    kind = Duration()
    assert kind.convert("90s", None, None) == timedelta(seconds=90)
    assert kind.convert("1.5h", None, None) == timedelta(minutes=90)
    with pytest.raises(click.BadParameter, match="write it as 30s"):
        kind.convert("90", None, None)


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ({}, "1200/2000 steps, 14.2/s"),
        ({"loss": 0.09121}, "1200/2000 steps, 14.2/s, loss 0.0912"),
        (
            {"loss": 0.09121, "bpd": 4.571, "bpd_se": 0.052},
            "1200/2000 steps, 14.2/s, loss 0.0912, 4.57 ± 0.05 bits/dim",
        ),
        ({"bpd": 4.571}, "1200/2000 steps, 14.2/s, 4.57 bits/dim"),
    ],
)
def test_what_a_job_is_worth_stands_beside_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, scores: dict[str, float], shown: str
) -> None:
    """The loss was to be found in MLflow alone, for every look at whether a job goes well."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert progress_text(job(scores=scores)) == shown
    assert shown in job_table([job(scores=scores)])
    run = ChildEntry(step="run-2", job_id="x", kind="train", state=JobState.SUCCEEDED, done=3)
    assert child_text(replace(run, scores={"loss": 0.5})).startswith(
        "run-2  SUCCEEDED, 3, loss 0.5"
    )
