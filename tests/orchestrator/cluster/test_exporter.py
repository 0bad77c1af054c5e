"""What a process shows to Prometheus, and takes back."""

from collections.abc import Mapping

from orchestrator.cluster.exporter import Metric, RayExporter

DEPTH = Metric("depth", "Jobs that wait.", ("queue",))
TOTAL = Metric("total", "Faults.")


class Gauge:
    """A gauge of Ray's."""

    def __init__(self) -> None:
        self.values: dict[tuple[tuple[str, str], ...], float] = {}

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        """Set a series."""
        self.values[tuple(tags.items())] = value


class Exporter(RayExporter):
    """One without Ray."""

    def __init__(self) -> None:
        super().__init__("s3://b")
        self.gauges: dict[Metric, Gauge] = {}

    def _gauge(self, metric: Metric) -> Gauge:
        return self.gauges.setdefault(metric, Gauge())


def test_a_queue_that_is_empty_is_shown_as_0() -> None:
    """A gauge keeps what was set last, for ever."""
    exporter = Exporter()
    exporter.show({DEPTH: {("a",): 2.0}})
    exporter.show({DEPTH: {("b",): 1.0}})
    assert exporter.gauges[DEPTH].values == {
        (("store", "s3://b"), ("queue", "a")): 0.0,
        (("store", "s3://b"), ("queue", "b")): 1.0,
    }


def test_who_stands_by_shows_nothing_any_more() -> None:
    """Its last numbers would be added to those of the orchestrator that took over."""
    exporter = Exporter()
    exporter.show({DEPTH: {("a",): 2.0}, TOTAL: {(): 3.0}})
    exporter.clear()
    shown = [value for gauge in exporter.gauges.values() for value in gauge.values.values()]
    assert shown == [0.0, 0.0]
