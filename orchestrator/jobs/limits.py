"""Limits that users of a store agreed on: GPU-hours a month of a queue, GPUs of a submitter."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.errors import BadInputError
from orchestrator.jobs.settings import (
    Numbers,
    Section,
    change_section,
    numbers_section,
    read_section,
)
from orchestrator.lifecycle.allowance import Usage
from orchestrator.scheduling.submitters import ANYBODY, limit_of
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore

USAGE = Codec(Usage, "usage")
GPU_HOURS = numbers_section("gpu_hours_a_month")
SUBMITTERS = numbers_section("submitters")
MOST = 10**9
_LONGEST_OWNER = 64


@dataclass(frozen=True)
class Limits:
    """What was agreed on; who is not named has no limit.

    Attributes:
        gpu_hours: Queue to the GPU-hours that its jobs may use in a calendar month.
        submitters: Submitter, or `ANYBODY`, to the GPUs that his jobs may hold at once.
    """

    gpu_hours: Mapping[str, float] = field(default_factory=dict)
    submitters: Mapping[str, float] = field(default_factory=dict)

    def concerns(self, queue: str, owner: str) -> bool:
        """Tell whether a limit holds for a job, whose GPUs must all be counted then."""
        return queue in self.gpu_hours or limit_of(owner, self.submitters) is not None


def read_limits(store: ObjectStore) -> Limits:
    """Return the limits as they are now. Raises: StoredFormError: As of `read_section`."""
    return Limits(read_section(store, GPU_HOURS), read_section(store, SUBMITTERS))


def set_limit(
    store: ObjectStore, section: Section[Numbers], name: str, limit: float | None
) -> Numbers:
    """Set or, with None, lift a limit; return all of the section.

    Raises:
        BadInputError: It is no number from 0 on, or the name cannot be one.
    """
    if limit is not None and not 0 <= limit <= MOST:
        raise BadInputError(f"a limit must be from 0 to {MOST:,}, or -1 for none, not {limit:g}")
    is_printable = name == ANYBODY or (name.isprintable() and name.strip() == name)
    if not name or not is_printable or len(name) > _LONGEST_OWNER:
        raise BadInputError(f"{name[:80]!r} is no submitter's name")

    def change(limits: Numbers) -> Numbers:
        others = {key: value for key, value in limits.items() if key != name}
        return others if limit is None else {**others, name: limit}

    return change_section(store, section, change)


def read_usage(store: ObjectStore) -> Usage:
    """Return what attempts that have ended used, by month and queue."""
    return USAGE.value(store, keys.USAGE) or Usage()
