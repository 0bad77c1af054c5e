"""How much of a job has gone to MLflow: what survives the process that sends it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from orchestrator.store.codec import Codec
from orchestrator.tracking.lines import MetricsLine
from orchestrator.tracking.server import MetricValue


@dataclass(frozen=True, kw_only=True)
class TrackingCursor:
    """What MLflow knows of a job.

    Attributes:
        experiment_id: The experiment.
        run_id: The job's one run; "" before there is one.
        is_described: The spec's params and tags were sent.
        attempt: The attempt whose lines are being read.
        number: The last segment of that attempt that was sent.
        sent: The last step that was sent of each metric.
        earlier: The same, as it was when the attempt began: steps up to it are never sent again.
        params: Names that have a value, which MLflow never lets change.
        status: The run's status as it was set last.
    """

    experiment_id: str = ""
    run_id: str = ""
    is_described: bool = False
    attempt: int = 1
    number: int = 0
    sent: Mapping[str, int] = field(default_factory=dict)
    earlier: Mapping[str, int] = field(default_factory=dict)
    params: frozenset[str] = frozenset()
    status: str = "RUNNING"

    def at_next_attempt(self) -> Self:
        """Return the cursor at the beginning of the next attempt's lines."""
        return replace(self, attempt=self.attempt + 1, number=0, earlier=dict(self.sent))

    def new_values(self, lines: Iterable[MetricsLine]) -> list[MetricValue]:
        """Return the values of lines whose steps no earlier attempt has sent."""
        return [
            MetricValue(name, value, line.at_ms, line.step)
            for line in lines
            for name, value in line.values.items()
            if line.by_time or line.step > self.earlier.get(name, -1)
        ]

    def with_sent(self, number: int, values: Iterable[MetricValue]) -> Self:
        """Return the cursor after a segment whose values were sent."""
        sent = dict(self.sent)
        for value in values:
            sent[value.name] = max(value.step, sent.get(value.name, -1))
        return replace(self, number=number, sent=sent)


TRACKING_CURSOR = Codec(TrackingCursor, "tracking cursor")
