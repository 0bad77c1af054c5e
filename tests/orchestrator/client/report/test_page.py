"""A report says all that was found, in one file that loads nothing, and reads without eyes."""

import dataclasses
import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest

from orchestrator.client.evaluations import differing, read_evaluations
from orchestrator.client.report.curves import training_plots
from orchestrator.client.report.page import report_page
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.cost import Cost
from orchestrator.store.keys import JobPaths
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
    page = report_page(store, read_evaluations(store, ["e1", "e2"]), AT)
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
    page = report_page(store, read_evaluations(store, ["e1", "e2"]), AT)
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
    assert differing(read_evaluations(store, ["e1", "e2"])) == ["microbatch_size"]


def test_what_is_no_evaluation_or_has_no_result_is_refused(store: MemoryStore) -> None:
    """In one line, before anything is written."""
    with pytest.raises(BadInputError, match="set-1 is a sample job"):
        read_evaluations(store, ["set-1"])
    store.delete(JobPaths("e1").evaluation)
    with pytest.raises(BadInputError, match="evaluation e1 has no result: it is QUEUED"):
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


def test_the_page_says_what_a_set_cost_and_that_a_price_is_missing(store: MemoryStore) -> None:
    """Quality at what price is the question; a missing price is no 0."""
    rows = read_evaluations(store, ["e1", "e2"])
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
