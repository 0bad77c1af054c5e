"""What limits there are, and what of them is used now."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.index import Index, read_index
from orchestrator.jobs.limits import read_limits, read_usage
from orchestrator.jobs.queue import read_quotas
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.allowance import month_of
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class LimitsNow:
    """The limits of a store.

    Attributes:
        quotas: Queue to the GPUs that its jobs may hold at once.
        gpu_hours: Queue to the GPU-hours that its jobs may use in a month.
        used: Queue to the GPU-hours used in this month.
        month: This month, of UTC.
        submitters: Submitter to the GPUs that his jobs may hold at once.
    """

    quotas: Mapping[str, float]
    gpu_hours: Mapping[str, float]
    used: Mapping[str, float]
    month: str
    submitters: Mapping[str, float]


def limits_now(store: ObjectStore) -> LimitsNow:
    """Return the limits of a store, and what is used."""
    limits, now = read_limits(store), store.now()
    records = []
    for entry in (read_index(store) or Index()).live if limits.gpu_hours else ():
        if entry.state.has_processes:
            with suppress(JobNotFoundError):  # somebody deletes it
                records.append(RecordStore(store).read(entry.job_id).record)
    return LimitsNow(
        quotas=read_quotas(store),
        gpu_hours=limits.gpu_hours,
        used=read_usage(store).used(records, now) if limits.gpu_hours else {},
        month=month_of(now),
        submitters=limits.submitters,
    )
