"""What Prometheus finds at Ray's exporter."""

import http.client
import re
from pathlib import Path

import pytest

from orchestrator.cluster.exporter import PREFIX
from orchestrator.controller.measures import METRICS
from orchestrator.stack.embedded import StackInfo
from orchestrator.stack.files import StackFolder, load_state
from tests.integration.commands import ddpmctl, submit, train_text, wait_until

QUEUE = "scraped"


def scraped(port: int) -> str:
    """What the exporter says now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def series(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The series of a metric: tags and value."""
    found = re.findall(rf"^{PREFIX}{name}{{([^}}]*)}} (\S+)$", text, re.MULTILINE)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', tags)), float(value)) for tags, value in found]


@pytest.mark.timeout(300)
def test_the_exporter_has_every_metric_that_the_dashboard_names(
    stack_info: StackInfo, tmp_path: Path
) -> None:
    """Names that only the code knows would show nothing; the dashboard is held to the same ones."""
    port = load_state(StackFolder(stack_info.folder)).ports["ray.metrics"]
    text = train_text("waits", workers=2).replace("cpus_per_worker: 1", "cpus_per_worker: 512")
    job_id = submit(tmp_path, f"{text}queue: {QUEUE}\npriority: 73\n")
    store = stack_info.environment["DDPMCTL_STORE"]

    def tells_of_the_job() -> bool:
        found = series(scraped(port), "ddpmctl_queue_depth")
        told = [value for tags, value in found if tags["queue"] == QUEUE]
        mine = [tags for tags, _ in found if tags["queue"] == QUEUE]
        return told == [1.0] and (mine[0]["priority"], mine[0]["store"]) == ("73", store)

    try:
        wait_until(tells_of_the_job, 120)
        said = scraped(port)
        missing = [metric.name for metric in METRICS if not series(said, metric.name)]
        assert missing == []
        ages = {tags["queue"]: s for tags, s in series(said, "ddpmctl_queue_age_seconds")}
        assert ages[QUEUE] > 0
        assert all(seconds > 0 for _, seconds in series(said, "ddpmctl_loop_seconds"))
    finally:
        ddpmctl("cancel", job_id)
