"""Sends what a job wrote to its run in MLflow, in parts, and goes on without what is refused."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from orchestrator.errors import ObjectNotFoundError
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking.lines import DatasetLine, ImageLine, ModelLine, TagsLine, TrackingLine
from orchestrator.tracking.server import (
    METRICS_PER_CALL,
    NAMES_PER_CALL,
    LineRefusedError,
    MetricValue,
    TrackingServer,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")


class TrackedRunSender:
    """Sends to one run.

    Args:
        store: Where the pictures are that lines name.
        server: MLflow.
        job_id: The job.
        run_id: Its run.
    """

    def __init__(
        self, store: ObjectStore, server: TrackingServer, job_id: str, run_id: str
    ) -> None:
        self._store = store
        self._server = server
        self._job_id = job_id
        self._run_id = run_id

    def send_line(self, line: TrackingLine) -> None:
        """Send a line that is neither of metrics nor of params; one that is refused is left out."""
        try:
            if isinstance(line, TagsLine):
                self.send_tags(line.values)
            elif isinstance(line, ImageLine):
                self._server.log_image(self._run_id, line, self._store.get(line.key).body)
            elif isinstance(line, DatasetLine):
                self._server.log_dataset(self._run_id, line)
            elif isinstance(line, ModelLine):
                self._server.register_model(self._run_id, self._job_id, line)
        except (LineRefusedError, ObjectNotFoundError) as error:
            logger.warning("job=%s: MLflow goes without a line: %s", self._job_id, error)

    def send_metrics(self, values: list[MetricValue]) -> None:
        """Send values of metrics."""
        _in_parts(
            values, METRICS_PER_CALL, lambda part: self._server.log_metrics(self._run_id, part)
        )

    def send_params(self, params: Mapping[str, str]) -> None:
        """Send params, none of which the run has."""
        _in_parts(
            list(params.items()),
            NAMES_PER_CALL,
            lambda part: self._server.log_params(self._run_id, dict(part)),
        )

    def send_tags(self, tags: Mapping[str, str]) -> None:
        """Send tags, over those that the run has."""
        _in_parts(
            list(tags.items()),
            NAMES_PER_CALL,
            lambda part: self._server.log_tags(self._run_id, dict(part)),
        )


def _in_parts(items: Sequence[T], size: int, send: Callable[[Sequence[T]], None]) -> None:
    """Send items in parts; a part that is refused goes in halves, so that only culprits stay."""
    for start in range(0, len(items), size):
        part = items[start : start + size]
        try:
            send(part)
        except LineRefusedError as error:
            if len(part) == 1:
                logger.warning("MLflow goes without %s: %s", part[0], error)
            else:
                _in_parts(part, (len(part) + 1) // 2, send)
