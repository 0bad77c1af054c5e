"""Numbers for Prometheus, by the exporter that Ray runs on every node.

Ray puts `ray_` before each name. All are gauges, running totals too: a counter of Ray's takes no 0,
so a series would begin at its first fault, and `rate` would miss that one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "ray_"
Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class Metric:
    """A number that is exported.

    Attributes:
        name: Without Ray's prefix.
        description: One line, with the unit.
        tags: What its series differ in.
    """

    name: str
    description: str
    tags: tuple[str, ...] = ()


class RayExporter:
    """Shows numbers from a process that Ray started; one a process.

    Args:
        store: Whose numbers these are, as a tag of every series: stores may share a cluster.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._gauges: dict[Metric, object] = {}
        self._shown: dict[Metric, set[tuple[str, ...]]] = {}

    def show(self, numbers: Mapping[Metric, Values]) -> None:
        """Set all series; one that was shown before and has no value now is 0.

        Args:
            numbers: By metric, and by the values of its tags in their order.
        """
        for metric, values in numbers.items():
            shown = self._shown.setdefault(metric, set())
            shown.update(values)
            gauge = self._gauge(metric)
            for tags in shown:
                named = dict(zip(metric.tags, tags, strict=True))
                gauge.set(values.get(tags, 0.0), tags={"store": self._store, **named})

    def clear(self) -> None:
        """Set all series to 0: another process shows the store's numbers now."""
        self.show({metric: {} for metric in self._shown})

    def _gauge(self, metric: Metric) -> Any:
        if metric not in self._gauges:
            from ray.util.metrics import Gauge

            gauge = Gauge(metric.name, metric.description, tag_keys=("store", *metric.tags))
            self._gauges[metric] = gauge
        return self._gauges[metric]
