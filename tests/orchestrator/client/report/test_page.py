"""A report says all that was found, in one file that loads nothing, and reads without eyes."""

import dataclasses
import json
import re
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from orchestrator.client.evaluations import Evaluated, differing
from orchestrator.client.report.curves import pair_plots, step_plots
from orchestrator.client.report.page import report_page
from orchestrator.client.report.plots import Plot, Series, svg_of
from orchestrator.client.report.training_curves import training_plots
from orchestrator.client.results import read_evaluations
from orchestrator.client.short_names import by_short_names
from orchestrator.errors import BadInputError
from orchestrator.jobs.curve import CurvePoint, put_point
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.cost import Cost
from orchestrator.lifecycle.state import AttemptRecord
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.lines import MetricsLine, encode_line, segments
from orchestrator.tracking.writer import MetricWriter
from tests.support.evaluations import put_evaluation
from tests.support.fakes import MemoryStore
from tests.support.page_reader import Reader
from tests.support.sample_sets import put_set
from tests.support.world import train_job

AT = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture
def store() -> MemoryStore:
    """Two evaluations of two sets."""
    store = MemoryStore()
    for number in (1, 2):
        put_set(store, f"set-{number}", np.zeros((8, 4, 4, 1), np.uint8), 4 * number)
        put_evaluation(store, f"e{number}", f"set-{number}", 0.01 * number)
    return store


def test_the_page_loads_nothing_and_reads_without_eyes(store: MemoryStore) -> None:
    """It is sent by mail, opened years later, and read aloud."""
    page = report_page(store, read_evaluations(store, ["e1", "e2"]).rows, AT)
    reader = Reader(page)
    assert reader.open == []
    loaded = [a.get("src") or a.get("href") or "" for t, a in reader.tags if t in ("img", "link")]
    assert all(address.startswith("data:") for address in loaded)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not re.search(r"url\((?!#)|@import", page)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 4
    assert all(attributes.get("alt") for attributes in images)
    plots = [a for tag, a in reader.tags if tag == "svg"]
    assert len(plots) >= 4
    assert all(a.get("role") == "img" and a.get("aria-label") for a in plots)
    ids = [a["id"] for _, a in reader.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert "&lt;digits&gt;" in page
    assert "<digits>" not in page


def test_the_page_shows_each_number_with_its_error_and_its_floor(store: MemoryStore) -> None:
    """A number alone tells nothing."""
    page = report_page(store, read_evaluations(store, ["e1", "e2"]).rows, AT)
    for told in (
        "0.0100 ± 0.0010",
        "0.0200 ± 0.0010",
        "0.0000 ± 0.0020",
        "k = 5",
        "90 samples",
        "0.625",
    ):
        assert told in page, told


def test_settings_that_differ_are_found(store: MemoryStore) -> None:
    """What is equal in all rows tells nothing of why they differ."""
    assert differing(read_evaluations(store, ["e1", "e2"]).rows) == ["microbatch_size"]


def test_what_is_no_evaluation_or_has_no_result_is_refused(store: MemoryStore) -> None:
    """In one line, before anything is written."""
    with pytest.raises(BadInputError, match="set-1 is a sample job"):
        read_evaluations(store, ["set-1"])
    store.delete(JobPaths("e1").evaluation)
    with pytest.raises(BadInputError, match="no result to show: QUEUED e1"):
        read_evaluations(store, ["e1"])


def test_a_training_shows_its_loss_and_the_terms_of_its_bound(store: MemoryStore) -> None:
    """Where in time the bits go is told by the draws that the training left."""
    store.put(JobPaths("t").spec, train_job("t").model_dump_json().encode())
    records = RecordStore(store)
    current = records.read("t")
    records.write(current, dataclasses.replace(current.record, attempt=1))
    paths = JobPaths("t").attempt(1)
    with MetricWriter(store, paths) as metrics:
        for step in range(1, 4):
            metrics.log(step, {"loss": 1.0 / step})
    images = [{"image": 0, "timesteps": [0, 5, 900], "terms": [2.0, 0.1, 0.01]}]
    store.put(f"{paths.folder}evaluation.json", json.dumps({"images": images}).encode())
    loss, terms = training_plots(store, ["t"])
    assert list(loss.series[0].y) == [1.0, 0.5, pytest.approx(1 / 3)]
    assert list(terms.series[0].x) == [1.0, 6.0, 901.0]
    assert list(terms.series[0].y) == [2.0, 0.1, 0.01]
    images = [{"image": 0, "timesteps": [], "terms": []}]  # a VAE's: a chain of one step
    store.put(f"{paths.folder}evaluation.json", json.dumps({"images": images}).encode())
    assert [plot.title for plot in training_plots(store, ["t"])] == [loss.title]


def put_curve(store: MemoryStore) -> None:
    """Put a training of two attempts whose checkpoints of steps 2 and 4 were evaluated."""
    store.put(JobPaths("t").spec, train_job("t").model_dump_json().encode())
    records = RecordStore(store)
    current = records.read("t")
    first = AttemptRecord(number=1, started_at=AT, ended_at=AT + timedelta(seconds=100))
    second = AttemptRecord(number=2, started_at=AT + timedelta(seconds=500))
    record = dataclasses.replace(current.record, attempt=2, attempts=(first, second))
    records.write(current, record)
    told = {1: [(2, 40), (3, 60)], 2: [(3, 510), (4, 520)]}
    for attempt, lines in told.items():
        body = b""
        for step, at_s in lines:
            at_ms = int(AT.timestamp() + at_s) * 1000
            line = MetricsLine(at_ms=at_ms, step=step, values={"loss": 1.0 / step})
            body += encode_line(line) + b"\n"
        folder = segments(store, JobPaths("t").attempt(attempt))
        folder.put(1, body)
    for step, kid in ((2, 0.5), (4, 0.25)):
        values = {"kid-pixels": kid, "kid-pixels_se": 0.01, "kid-pixels_floor": 0.002}
        put_point(store, "t", CurvePoint(step=step, at_ms=step, job_id="e", values=values))


def test_a_training_shows_what_its_checkpoints_are_worth_by_step_and_by_time(
    store: MemoryStore,
) -> None:
    """How long to train is read off it; what an attempt did in vain was time, too."""
    put_curve(store)
    loss, by_step, by_time = training_plots(store, ["gone", "t"])
    assert loss.title == "training loss by step"
    assert by_step.title == "kid of checkpoints against training steps"
    assert (list(by_step.series[0].x), list(by_step.series[0].y)) == ([2.0, 4.0], [0.5, 0.25])
    assert list(by_step.series[0].errors) == [0.01, 0.01]
    assert by_step.bands["y"].middle == 0.002
    assert by_time.title == "kid of checkpoints against seconds of training"
    assert list(by_time.series[0].x) == [40.0, 120.0]
    dashed = "stroke-dasharray"  # a floor whose spread nobody knows is a line, for a band has none
    assert dashed in svg_of(by_step, 0)
    assert dashed not in svg_of(loss, 0)


def over_three_seeds(store: MemoryStore) -> list[Evaluated]:
    """Return two methods' sets, each of three seeds, that one pipeline drew."""
    (row,) = read_evaluations(store, ["e1"]).rows
    return [
        dataclasses.replace(
            row,
            samples=f"tri-{family}-s{seed}-20261128-1",
            recipe=family,
            settings={"family": family, "method": "ddpm", "num_steps": steps, "seed": seed},
            metrics={
                name: dataclasses.replace(found, value=seed / 100)
                for name, found in row.metrics.items()
            },
        )
        for family, steps in (("ddpm", 10), ("vae", 1))
        for seed in (0, 1, 2)
    ]


def test_sets_of_other_seeds_stand_together(store: MemoryStore) -> None:
    """Whether a method is better is asked of its mean; names fit beside the numbers."""
    rows = over_three_seeds(store)
    page = report_page(store, rows, AT)
    assert "Means over seeds" in page
    assert "0.0100 ± 0.0100" in page  # of 0, 0.01 and 0.02
    assert "quality (kid):" in page
    assert "A set called X is the job tri-X-20261128-1." in page
    kid = next(iter(pair_plots(by_short_names(rows))))
    assert [(s.name, list(s.y)) for s in kid.series] == [
        ("ddpm-s0 and 2 more", [0.0, 0.01, 0.02]),
        ("vae-s0 and 2 more", [0.0, 0.01, 0.02]),
    ]
    by_steps = next(iter(step_plots(rows)))
    shown = [(s.name, list(s.x)) for s in by_steps.series]
    assert shown == [("vae", [1.0]), ("ddpm", [10.0])]
    assert [y for s in by_steps.series for y in s.y] == pytest.approx([0.01, 0.01])
    assert "Means over seeds" not in report_page(store, rows[:1], AT)


def test_many_lines_leave_room_for_their_points_and_differ() -> None:
    """27 names inside the axes left nothing of them."""
    many = [Series(name=f"set {n}", x=[float(n)], y=[float(n)]) for n in range(27)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = svg_of(Plot(title="t", x_label="x", y_label="y", series=many), 0)
    assert all(f">set {n}<" in text for n in range(27))
    height = float(re.search(r'height="([\d.]+)pt"', text)[1])  # type: ignore[index]
    assert height > 1.5 * 3.8 * 72


def test_the_page_says_that_it_is_not_whole(store: MemoryStore) -> None:
    """Whoever opens it later must not take a part for the whole."""
    rows = read_evaluations(store, ["e1", "e2"]).rows
    assert "Not whole" not in report_page(store, rows, AT)
    page = report_page(store, rows, AT, "1 of 3 evaluations has no result: RUNNING <e3>")
    assert "Not whole: 1 of 3 evaluations has no result: RUNNING &lt;e3&gt;." in page


def test_the_page_says_what_a_set_cost_and_that_a_price_is_missing(store: MemoryStore) -> None:
    """Quality at what price is the question; a missing price is no 0."""
    rows = read_evaluations(store, ["e1", "e2"]).rows
    assert "price table" not in report_page(store, rows, AT)
    known = Cost(currency="EUR", amount=12.5, per_1000_images=0.25, gpu_hours={"H100": 5.0})
    missing = Cost(currency="EUR", amount=None, gpu_hours={"V100": 1.0}, unpriced=("V100",))
    rows = [
        dataclasses.replace(rows[0], cost=known, training_cost=missing),
        dataclasses.replace(rows[1], cost=None),
    ]
    page = report_page(store, rows, AT)
    cells = re.findall(r"<td>([^<]*(?:EUR|price)[^<]*)</td>", page)
    assert cells == ["12.50 EUR", "0.25 EUR", "unknown: no price for V100"]
