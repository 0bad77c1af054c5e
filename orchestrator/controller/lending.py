"""What each fleet may do with the room beyond its placement: decided in every round, for all.

A fleet may take what is free where nobody could start, and gives it back as soon as somebody could.
Its driver reads the answer in the job's record and obeys. Pure, but for what it saw before.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from orchestrator.controller.adoption import LiveJob
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import JobRecord, JobState, Lending
from orchestrator.scheduling.borrowing import leaving, somebody_starts
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.snapshot import Snapshot

LATE_START = timedelta(seconds=40)
LACKS_LASTINGLY = timedelta(seconds=5)  # longer than a heartbeat: a worker may be on its way


class Lender:
    """Decides what fleets may do with room that they were not given."""

    def __init__(self) -> None:
        self._lacks_since: dict[str, datetime] = {}

    def decide(
        self,
        jobs: Iterable[LiveJob],
        snapshot: Snapshot,
        now: datetime,
        is_limited: Callable[[str, str], bool] = lambda _queue, _owner: False,
    ) -> Mapping[str, Lending]:
        """Return the answer for each fleet that may grow, by its job's id.

        Args:
            jobs: All that have not ended; groups are none.
            snapshot: What the scheduler sees, once it has acted in this round.
            now: By the store's clock.
            is_limited: Whether a limit holds for a queue, or for a submitter.
        """
        jobs = list(jobs)
        fleets = [job.record for job in jobs if may_grow(job.record, snapshot.nodes)]
        lacking = self._lacking(jobs, now)
        starting = {j.record.job_id: j.record for j in jobs if j.record.state is JobState.STARTING}
        late = {name for name, r in starting.items() if now - r.changed_at > LATE_START}
        urgent = late | {name for name, at in lacking.items() if now - at >= LACKS_LASTINGLY}
        # What is borrowed is counted nowhere, so a limit on GPUs or GPU-hours would not hold.
        limited = {
            job.record.job_id
            for job in jobs
            if job.spec.max_gpu_hours is not None
            or (_uses_gpus(job.record) and is_limited(job.record.queue, job.record.owner))
        }
        is_wanted = somebody_starts(snapshot, now.timestamp())
        back = leaving(snapshot, now.timestamp())
        answers = {}
        for fleet in fleets:
            name = fleet.job_id
            has_no_right = _uses_gpus(fleet) and fleet.queue in snapshot.quotas
            if has_no_right or name in back or urgent - {name}:
                answers[name] = Lending.BACK
            elif name in limited or is_wanted or (starting.keys() | lacking.keys()) - {name}:
                answers[name] = Lending.KEEP
            else:
                answers[name] = Lending.MORE
        return answers

    def _lacking(self, jobs: Iterable[LiveJob], now: datetime) -> Mapping[str, datetime]:
        """Return the fleets that ask in vain for room which they were given, and since when."""
        before = self._lacks_since
        self._lacks_since = {
            job.record.job_id: before.get(job.record.job_id, now) for job in jobs if _lacks(job)
        }
        return self._lacks_since


def may_grow(record: JobRecord, nodes: Iterable[NodeCapacity]) -> bool:
    """Tell whether a job runs with places for fewer workers than it could use.

    Args:
        record: The job's.
        nodes: All nodes; a place on one that is about to go is none.
    """
    resources, placement = record.resources, record.placement
    if record.state is not JobState.RUNNING or resources is None or placement is None:
        return False
    going = {node.node_id for node in nodes if node.is_draining}
    places = [n for node_id, n in placement.workers_by_node.items() if node_id not in going]
    return resources.max_workers > sum(places)


def _uses_gpus(record: JobRecord) -> bool:
    return record.placement is not None and record.placement.gpus_per_worker > 0


def _lacks(job: LiveJob) -> bool:
    said, is_running = job.said, job.record.state is JobState.RUNNING
    return bool(is_running and said and said.phase is Phase.RUNNING and said.num_unplaced)
