"""The run of a sweep tells what came of its jobs, and which is best."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.jobs.progress import GROUP_PROGRESS, ChildEntry, GroupProgress
from orchestrator.jobs.records import RECORD
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.carrier import TrackingCarrier
from orchestrator.tracking.results import result_tags
from tests.support.fakes import MemoryStore, MemoryTracking
from tests.support.records import record_of

AT = datetime(2026, 11, 29, tzinfo=UTC)
SWEEP = record_of("s-1", at=AT, kind="sweep", name="s", state=JobState.SUCCEEDED, attempt=1)


def child(number: int, **scores: float) -> ChildEntry:
    """Return a child that has ended."""
    return ChildEntry(
        step=f"{number:03d}",
        job_id=f"s-1-{number:03d}",
        kind="train",
        settings={"training.seed": number, "odd": "a|b\nc"},
        state=JobState.SUCCEEDED,
        scores=scores,
    )


def told(*children: ChildEntry, record: JobRecord = SWEEP) -> dict[str, str]:
    """Return the tags of a sweep with these children."""
    store = MemoryStore()
    progress = GroupProgress(done=len(children), total=len(children), children=children)
    store.put(JobPaths("s-1").progress, GROUP_PROGRESS.encode(progress))
    return result_tags(store, record, {})


def test_the_best_is_named_and_each_job_has_a_row() -> None:
    """Without it, whoever opens the sweep opens every run of it."""
    tags = told(child(1, loss=0.2, bpd=4.5), child(2, loss=0.3, bpd=4.25), child(3))
    assert tags["ddpmctl.best"] == "s-1-002: bits/dim 4.25"
    rows = [line for line in tags["mlflow.note.content"].splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert rows[3] == (
        "| **s-1-002** (best) | training.seed=2, odd=a/b c | SUCCEEDED | 4.25 | 0.3 |"
    )
    assert rows[4].endswith("| SUCCEEDED |  |  |")
    assert {row.count("|") for row in rows} == {6}
    assert "best: s-1-002: bits/dim 4.25" in tags["mlflow.note.content"].splitlines()[:3]


def test_the_loss_decides_where_no_job_was_evaluated() -> None:
    """The bound may be switched off."""
    assert told(child(1, loss=0.2), child(2, loss=0.1))["ddpmctl.best"] == "s-1-002: loss 0.1"


@pytest.mark.parametrize(
    "changes", [{"state": JobState.RUNNING}, {"kind": "train"}], ids=["not ended", "no group"]
)
def test_what_has_no_results_says_nothing(changes: dict[str, Any]) -> None:
    """A table that is half true would stay."""
    assert told(child(1, loss=0.2), record=replace(SWEEP, **changes)) == {}
    assert told(child(1)) == {}


def test_a_long_sweep_fits_into_what_mlflow_takes() -> None:
    """A tag that is too long is refused, and the sweep's run would have no description at all."""
    tags = told(*(child(number, loss=1.0 + number) for number in range(256)))
    text = tags["mlflow.note.content"]
    assert len(text.encode()) <= 5000
    assert len(re.findall(r"^and \d+ more$", text, re.MULTILINE)) == 1
    assert text.endswith("```")
    assert "s-1-000** (best)" in text


def test_the_carrier_tells_it_with_the_end() -> None:
    """The children's last scores are written before the sweep's end."""
    store, server = MemoryStore(), MemoryTracking()
    store.put(JobPaths("s-1").spec, json.dumps({"kind": "sweep", "name": "s"}).encode())
    store.put(JobPaths("s-1").record, RECORD.encode(replace(SWEEP, state=JobState.RUNNING)))
    carrier = TrackingCarrier(store, server)
    carrier.carry("s-1")
    assert "ddpmctl.best" not in server.tags["run-1"]
    progress = GroupProgress(done=1, total=1, children=(child(1, loss=0.5),))
    store.put(JobPaths("s-1").progress, GROUP_PROGRESS.encode(progress))
    store.put(JobPaths("s-1").record, RECORD.encode(SWEEP))
    carrier.carry("s-1")
    assert server.tags["run-1"]["ddpmctl.best"] == "s-1-001: loss 0.5"
    assert "s-1-001" in server.tags["run-1"]["mlflow.note.content"]
    values = {value.name: value.value for value in server.metrics["run-1"]}
    assert values == {"jobs/loss": 0.5, "best/loss": 0.5, "best/job": 1.0}


def test_a_sweeps_own_run_can_be_sorted_and_drawn_by_what_it_found() -> None:
    """A table of runs sorts by metrics, and a chart draws nothing but metrics."""
    store, server = MemoryStore(), MemoryTracking()
    children = (child(1, bpd=4.5, bpd_se=0.1), child(2, bpd=4.25, loss=0.3), child(3))
    progress = GroupProgress(done=3, total=3, children=children)
    store.put(JobPaths("s-1").spec, json.dumps({"kind": "sweep", "name": "s"}).encode())
    store.put(JobPaths("s-1").record, RECORD.encode(SWEEP))
    store.put(JobPaths("s-1").progress, GROUP_PROGRESS.encode(progress))
    TrackingCarrier(store, server).carry("s-1")
    found = {(value.name, value.step): value.value for value in server.metrics["run-1"]}
    assert found == {
        ("jobs/bpd", 1): 4.5,
        ("jobs/bpd_se", 1): 0.1,
        ("jobs/bpd", 2): 4.25,
        ("jobs/loss", 2): 0.3,
        ("best/bpd", 0): 4.25,
        ("best/loss", 0): 0.3,
        ("best/job", 0): 2.0,
    }
