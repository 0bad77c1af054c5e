"""A job file made again from what is stored of a job, for another job like it."""

import copy
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import BadInputError
from orchestrator.specs.asked import Submitted
from orchestrator.specs.document import Document
from orchestrator.specs.files import JobFile, job_file_of
from orchestrator.specs.group import GroupJob

_DATASET, _SOURCE, _PIN = "dataset", "source", "sha256"


def job_file_again(old: Submitted, job_id: str, overrides: Sequence[str]) -> JobFile:
    """Return the job file of a job that there is, with other settings.

    Images that it does not change are the same ones, by their hash.

    Args:
        old: What was submitted then.
        job_id: Of the job, for messages.
        overrides: `a.b=value` each, as `--set` takes them.

    Raises:
        BadInputError: A setting is wrong, or an earlier version kept no file of a group.
    """
    document = Document(f"job {job_id}", _written(old, job_id), {})
    if any(option.partition("=")[0].endswith(f"{_DATASET}.{_SOURCE}") for option in overrides):
        _unpin(document.value)
    return job_file_of(document, overrides)


def _written(old: Submitted, job_id: str) -> dict[str, Any]:
    if old.asked is None:
        if isinstance(old.spec, GroupJob):
            raise BadInputError(
                f"job {job_id} was put by a version that kept no file of groups; submit its file"
            )
        return old.spec.model_dump(mode="json")
    parts = old.asked.parts
    value: dict[str, Any] = copy.deepcopy(dict(parts[""]))
    for step, part in parts.items():
        place = value.get("steps", {}).get(step) if step else None
        place = value.get("job") if step and place is None else place
        if isinstance(place, dict) and _DATASET in part and _DATASET in place:
            place[_DATASET] = copy.deepcopy(part[_DATASET])
    if _varies_images(value):
        _unpin(value["job"])
    return value


def _varies_images(value: dict[str, Any]) -> bool:
    return value.get("kind") == "sweep" and _SOURCE in value["matrix"].get(_DATASET, {})


def _unpin(value: Any) -> None:
    """Take the hashes of images out, wherever they stand."""
    if isinstance(value, dict):
        if isinstance(value.get(_DATASET), dict):
            value[_DATASET].pop(_PIN, None)
        for inner in value.values():
            _unpin(inner)
