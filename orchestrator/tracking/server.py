"""What the orchestrator asks of a tracking server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import TrackingError
from orchestrator.tracking.lines import DatasetLine, ImageLine, ModelLine

# What one call takes at most.
METRICS_PER_CALL = 1000
NAMES_PER_CALL = 100


class LineRefusedError(TrackingError):
    """The server is well and will never take this: trying again is of no use."""


class RunMissingError(TrackingError):
    """The server does not know the run, as after the loss of its database."""


@dataclass(frozen=True)
class MetricValue:
    """One value of one metric."""

    name: str
    value: float
    at_ms: int
    step: int


class TrackingServer(Protocol):
    """Runs under explicit ids.

    Every method raises `TrackingError` when the server does not answer, and `LineRefusedError`
    when it answers that it won't take what it was given.
    """

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, made if absent."""

    def find_run(self, experiment_id: str, job_id: str) -> str | None:
        """Return the id of the oldest run of a job, or None."""

    def create_run(self, experiment_id: str, job_id: str, start_ms: int) -> str:
        """Make the run of a job and return its id."""

    def delete_run(self, run_id: str) -> None:
        """Remove a run."""

    def is_active(self, run_id: str) -> bool:
        """Tell whether a run takes values: false once somebody has deleted it by hand.

        Raises:
            RunMissingError: The server does not know it.
        """

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Set a run's status, and its end where there is one."""

    def log_metrics(self, run_id: str, values: Sequence[MetricValue]) -> None:
        """Add at most `METRICS_PER_CALL` values; one that is there already stays one."""

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Add at most `NAMES_PER_CALL` params; another value for a known name is refused."""

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set at most `NAMES_PER_CALL` tags."""

    def log_image(self, run_id: str, line: ImageLine, png: bytes) -> None:
        """Put an image among the run's artifacts, and into its grid of images by step.

        It takes the place of one of the same path and time.
        """

    def log_dataset(self, run_id: str, line: DatasetLine) -> None:
        """Note a data set as an input of the run."""

    def register_model(self, run_id: str, job_id: str, line: ModelLine) -> None:
        """Register a model, unless the job has registered that step already."""

    def set_alias(self, job_id: str, line: ModelLine, alias: str) -> None:
        """Have an alias of a model point at the version that `register_model` made."""
