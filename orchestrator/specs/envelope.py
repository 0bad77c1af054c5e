"""What stands in a job's `spec.json`: what was asked and, beside it, where the job comes from.

Light, so that whoever wants to know a job's name or group need not build the models of job files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.store.codec import VERSION_KEY, Codec


@dataclass(frozen=True)
class Asked:
    """What a user wrote.

    Attributes:
        parts: The document of each job, by its step, and that of the group (or a lone job) at "".
        variables: The variables of the environment that the file named, with what they held.
        user: Who submitted it.
    """

    parts: Mapping[str, Mapping[str, object]]
    variables: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a job comes from; no user writes it.

    Attributes:
        parent: The group that it belongs to, or the training that it evaluates; "" for none.
        step: Its name within that group.
        at_step: Steps of the training's checkpoint that it evaluates; 0 for none.
        smoke_of: The job that this one is a smoke test of; "" for none.
        waits_for_smoke: The smoke test that must pass before it starts; "" for none.
        user: Who submitted the group or the training; "" of a job of its own.
    """

    parent: str = ""
    step: str = ""
    at_step: int = 0
    smoke_of: str = ""
    waits_for_smoke: str = ""
    user: str = ""

    @property
    def is_smoke(self) -> bool:
        """Whether the job is a smoke test and ends after its look."""
        return bool(self.smoke_of)

    @property
    def trained_by(self) -> str:
        """The training whose checkpoint it evaluates while that goes on; "" for none."""
        return self.parent if self.at_step else ""


@dataclass(frozen=True, kw_only=True)
class StoredSpec:
    """A job as it was submitted.

    Attributes:
        spec: What is asked, with every default, as JSON values: a job or a group.
        origin: Where it comes from.
        asked: What the user wrote; None where nobody did, or an earlier version kept nothing.
    """

    spec: Mapping[str, object]
    origin: Origin = field(default_factory=Origin)
    asked: Asked | None = None


_IN_SPEC = ("smoke_of", "waits_for_smoke")


def _from_bare(value: dict[str, Any]) -> dict[str, Any]:
    """Return the envelope of a file from before there was one: all stood among the spec's keys."""
    spec = {key: one for key, one in value.items() if key != VERSION_KEY}
    parent = spec.pop("parent", None) or {}
    asked = spec.pop("asked", None)
    origin = {"parent": parent.get("job_id", ""), "step": parent.get("step", "")}
    origin |= {name: spec.pop(name, None) or "" for name in _IN_SPEC}
    if "children" in spec:
        spec["children"] = [_bare_child(child) for child in spec["children"]]
    return {"spec": spec, "origin": origin, "asked": asked}


def _bare_child(child: dict[str, Any]) -> dict[str, Any]:
    bare = child.get("spec", {})
    spec = {key: one for key, one in bare.items() if key not in _IN_SPEC}
    return {**child, "spec": spec, "waits_for_smoke": bare.get("waits_for_smoke") or ""}


STORED_SPEC = Codec(StoredSpec, "spec", upgrade=_from_bare, indent=1)
