"""How the runs of a group's children stand below the group's own run in MLflow."""

from orchestrator.jobs.tracked_run import tracked_run
from orchestrator.lifecycle.state import JobRecord
from orchestrator.specs.envelope import StoredSpec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking import tags


def own_settings(stored: StoredSpec) -> dict[str, object]:
    """Return what a stored spec says of its own job, and what a sweep varies."""
    written = stored.asked.parts.get("", {}) if stored.asked else {}
    matrix = written.get("matrix")
    return {**stored.spec, "matrix": matrix} if matrix else dict(stored.spec)


def group_tags(store: ObjectStore, record: JobRecord) -> dict[str, str] | None:
    """Return the tags that put a job's run below its group's run.

    None while that run is still to be made; no tags for a job without a group, or one whose group
    was deleted.
    """
    group = JobPaths(record.parent)
    if not record.parent or not store.exists(group.spec):
        return {}
    run_id = tracked_run(store, record.parent).run_id
    if not run_id:
        return None
    return {
        "mlflow.parentRunId": run_id,
        tags.GROUP: record.parent,
        tags.GROUP_STEP: record.step,
    }
