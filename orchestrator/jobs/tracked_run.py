"""A job's run in MLflow, as those need it who only want to find it."""

from dataclasses import dataclass

from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """Of the cursor of a job's tracking: which run of MLflow it is.

    Attributes:
        run_id: The run; "" before there is one.
        experiment_id: Its experiment.
    """

    run_id: str = ""
    experiment_id: str = ""


_TRACKED_RUN = Codec(TrackedRun, "tracking cursor")


def tracked_run(store: ObjectStore, job_id: str) -> TrackedRun:
    """Return a job's run. Raises: StoredFormError."""
    found = _TRACKED_RUN.value(store, JobPaths(job_id).tracking_cursor)
    return found or TrackedRun()
