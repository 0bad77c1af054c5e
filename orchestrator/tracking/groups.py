"""How the runs of a group's children stand below the group's own run in MLflow."""

from collections.abc import Mapping
from typing import Any

from orchestrator.lifecycle.state import ASKED_KEY, PARENT_KEY, JobRecord
from orchestrator.store.json_objects import read_json
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking.cursor import decode_cursor

# A group's children have runs of their own, the group of a job is told as tags, and what has
# nothing to do with the images drawn would hide what has.
_NO_PARAMS = frozenset(
    {"children", ASKED_KEY, PARENT_KEY, "retry", "notify", "waits_for_smoke", "smoke_of"}
)


def own_settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stored spec says of its own job, and what a sweep varies."""
    own = {key: value for key, value in spec.items() if key not in _NO_PARAMS}
    asked = spec.get(ASKED_KEY) or {}
    matrix = asked.get("parts", {}).get("", {}).get("matrix")
    return {**own, "matrix": matrix} if matrix else own


def group_tags(store: ObjectStore, record: JobRecord) -> dict[str, str] | None:
    """Return the tags that put a job's run below its group's run.

    None while that run is still to be made; no tags for a job without a group, or one whose group
    was deleted.
    """
    group = JobPaths(record.parent)
    if not record.parent or not store.exists(group.spec):
        return {}
    found = read_json(store, group.tracking_cursor)
    run_id = decode_cursor(found[1].body).run_id if found else ""
    if not run_id:
        return None
    return {
        "mlflow.parentRunId": run_id,
        "ddpmctl.group": record.parent,
        "ddpmctl.step": record.step,
    }
