"""What a user wrote, beside what it came to with the defaults of that day; and whether two are one.

A later version may have other defaults. The same file under the same id is then still the same job:
what nobody wrote is not compared, and what somebody wrote must mean the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.specs.envelope import Asked, Origin
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job

_Way = tuple[str, ...]
_SMOKES = ("smoke_of", "waits_for_smoke")
_NOT_THERE = object()


@dataclass(frozen=True)
class Submitted:
    """A spec with what belongs to it.

    Attributes:
        spec: What is asked, with every default.
        asked: What was written for it; None where nobody knows that any more.
        origin: Where the job comes from.
    """

    spec: Job | GroupJob
    asked: Asked | None = None
    origin: Origin = field(default_factory=Origin)


def differences(new: Submitted, stored: Submitted) -> list[str]:
    """Return the fields, as ways with dots, in which two jobs are not the same; [] if they are.

    Args:
        new: What is asked now.
        stored: What was asked, read with the defaults of this version where it says nothing.
    """
    ours, theirs = _specs(new.spec), _specs(stored.spec)
    if ours.keys() != theirs.keys():
        return sorted(ours.keys() ^ theirs.keys())
    smokes = [one for one in _SMOKES if getattr(new.origin, one) != getattr(stored.origin, one)]
    return smokes + [
        ".".join((*([step] if step else []), *way))
        for step in ours
        for way in _differing(ours[step], theirs[step], _written(new, step), _written(stored, step))
    ]


def fields_that_differ(
    one: Job | GroupJob, other: Job | GroupJob
) -> dict[str, tuple[object, object]]:
    """Return the fields, as ways with dots, in which two specs differ, with both values.

    A field that one of them does not have is None there.
    """
    values = []
    for spec in (one, other):
        leaves = {step: dict(_leaves(value)) for step, value in _specs(spec).items()}
        values.append(
            {
                ".".join((*([step] if step else []), *way)): value
                for step, ways in leaves.items()
                for way, value in ways.items()
                if way[0] != "ties"
            }
        )
    ours, theirs = values
    return {
        key: (ours.get(key), theirs.get(key))
        for key in ours | theirs
        if ours.get(key) != theirs.get(key)
    }


def _specs(spec: Job | GroupJob) -> dict[str, dict[str, object]]:
    """Return the fields of a job by its step, those of a group (or a lone job) at ""."""
    own = spec.model_dump(mode="json")
    if not isinstance(spec, GroupJob):
        return {"": own}
    children = {child["step"]: child for child in own.pop("children")}
    ties = {step: {**child, "spec": None} for step, child in children.items()}
    specs: dict[str, dict[str, object]] = {step: child["spec"] for step, child in children.items()}
    return {"": {**own, "ties": ties}, **specs}


def _written(job: Submitted, step: str) -> set[_Way] | None:
    """Return the ways of what was written; None where everything has to count as that."""
    if job.asked is None or step not in job.asked.parts:
        return None
    return set(dict(_leaves(job.asked.parts[step])))


def _differing(
    ours: Mapping[str, object],
    theirs: Mapping[str, object],
    wrote: set[_Way] | None,
    they_wrote: set[_Way] | None,
) -> Iterator[_Way]:
    new, old = dict(_leaves(ours)), dict(_leaves(theirs))
    for way in new | old:
        if new.get(way, _NOT_THERE) == old.get(way, _NOT_THERE):
            continue
        if _counts(way, wrote) or _counts(way, they_wrote):
            yield way


def _counts(way: _Way, written: set[_Way] | None) -> bool:
    """Tell whether a field, or one that it stands in, was written."""
    if written is None or way[0] == "ties":
        return True
    return any(way[:end] in written for end in range(1, len(way) + 1))


def _leaves(value: Mapping[str, object], above: _Way = ()) -> Iterator[tuple[_Way, object]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, (*above, key))
        else:
            yield (*above, key), inner
