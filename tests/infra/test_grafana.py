"""The dashboard shows what the orchestrator exports, all of it and under those names."""

import json
import re
from pathlib import Path

from orchestrator.cluster.exporter import PREFIX
from orchestrator.controller.measures import METRICS

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "infra/grafana/dashboard.json").read_text("utf-8"))


def test_the_dashboard_names_each_metric_and_no_other() -> None:
    """A renamed metric would leave an empty panel that nobody notices until it is needed."""
    named = set(re.findall(rf"{PREFIX}\w+", json.dumps(DASHBOARD["panels"])))
    assert named == {f"{PREFIX}{metric.name}" for metric in METRICS}


def test_panels_sum_and_name_by_tags_that_their_metric_has() -> None:
    """A series that is summed by a tag it lacks is one line without a name."""
    tags = {f"{PREFIX}{metric.name}": {"store", *metric.tags} for metric in METRICS}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            (name,) = re.findall(rf"{PREFIX}\w+", target["expr"])
            grouped = re.search(r"by \(([^)]*)\)", target["expr"])
            by = set(grouped[1].split(", ")) if grouped else set()
            assert by <= tags[name], panel["title"]
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= by, panel["title"]


def test_panels_do_not_overlap_and_have_an_id_of_their_own() -> None:
    """Grafana draws them on top of each other without a word."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}) == len(panels)


def test_the_page_explains_each_metric_with_its_tags() -> None:
    """Whoever writes an alarm reads there what a number counts, and what it does not."""
    page = (ROOT / "docs/guides/monitoring.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", page, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", tags)) for name, tags in rows}
    assert told == {f"{PREFIX}{metric.name}": metric.tags for metric in METRICS}
