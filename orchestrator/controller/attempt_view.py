"""What is seen of an attempt at one moment: its processes, its outcome, and what Ray says."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from orchestrator.cluster.process_search import ProcessRef, Sighting
from orchestrator.cluster.ray_cluster import Cluster
from orchestrator.errors import RayUnavailableError
from orchestrator.jobs.heartbeat import OUTCOME, Heartbeat
from orchestrator.jobs.processes import REGISTERED_PROCESS
from orchestrator.lifecycle.attempts import gpu_hours
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.lifecycle.steps import DriverStatus, Facts
from orchestrator.store.keys import AttemptPaths, JobPaths
from orchestrator.store.objects import ObjectStore

_HEARD_WITHIN_S = 6.0  # two heartbeats
_LOOK_EVERY_S = 15.0  # half of what a wrong word may stand

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttemptView:
    """What was seen of an attempt.

    Attributes:
        facts: For the decision.
        running: Its processes that are alive.
        said: Units that it said are committed.
    """

    facts: Facts
    running: list[ProcessRef]
    said: int


class AttemptSight:
    """Looks at attempts; remembers which processes they registered.

    Args:
        store: The truth.
        cluster: Where attempts run.
    """

    def __init__(self, store: ObjectStore, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster
        # By attempt's folder and key; what is there once stays as it is, once it knows its node.
        self._known: dict[str, dict[str, ProcessRef]] = {}
        self._looks: dict[str, _Look] = {}  # by attempt's folder

    def look(self, record: JobRecord, said: Heartbeat | None) -> AttemptView:
        """Return what is seen of a job's current attempt, of which a heartbeat is at hand.

        Raises:
            RayUnavailableError: Ray does not say which processes run.
        """
        paths = JobPaths(record.job_id).attempt(record.attempt)
        now = self._store.now()
        stored = OUTCOME.read(self._store, paths.outcome)
        outcome = stored[0] if stored else None
        processes = self._processes(paths)
        ray, message = self._ray_status(record)
        silent_s = (now - _heard_of(record, said)).total_seconds()
        is_well = (
            record.state is JobState.RUNNING and ray is DriverStatus.RUNNING and outcome is None
        )
        may_be_old = is_well and silent_s <= _HEARD_WITHIN_S
        seen = self._sighting(paths.processes, processes, may_be_old=may_be_old)
        facts = Facts(
            ray=ray,
            outcome=outcome,
            outcome_age_s=stored[1].age.total_seconds() if stored else 0.0,
            phase=said.phase if said else None,
            has_begun=bool(processes),
            driver_runs=any(process.role == "driver" for process in seen.running),
            num_running=len(seen.running),
            num_unknown=len(seen.unknown),
            running_s=(now - record.attempts[-1].started_at).total_seconds(),
            in_state_s=(now - record.changed_at).total_seconds(),
            silent_s=silent_s,
            ray_message=message,
            gpu_hours=gpu_hours(record, now),
        )
        return AttemptView(facts, seen.running, _committed(outcome, said))

    def _sighting(self, folder: str, processes: list[ProcessRef], *, may_be_old: bool) -> Sighting:
        """Look for the processes of an attempt.

        On another machine that is a task of Ray's, for which a busy node starts a process each
        time: so while all is said to be well, a look of some seconds ago will do.
        """
        now, last = self._store.now(), self._looks.get(folder)
        if may_be_old and last is not None and last.will_do(now, processes):
            return last.sighting
        sighting = self._cluster.alive(processes)
        self._looks[folder] = _Look(now, sighting)
        return sighting

    def _ray_status(self, record: JobRecord) -> tuple[DriverStatus | None, str]:
        try:
            status = self._cluster.status(submission_id(record))
            ended = status.has_ended
            message = self._cluster.message(submission_id(record)) if ended else ""
        except RayUnavailableError as error:
            logger.warning("job=%s status unknown: %s", record.job_id, error)
            return None, ""
        return status, " ".join(message.split())[:300]

    def _processes(self, paths: AttemptPaths) -> list[ProcessRef]:
        keys = [info.key for info in self._store.list_objects(paths.processes)]
        known = self._known.setdefault(paths.processes, {})
        for key in keys:
            if key not in known or not known[key].node_id:
                known[key] = REGISTERED_PROCESS.decode(self._store.get(key).body, key)
        return [known[key] for key in keys]

    def known(self, record: JobRecord) -> Collection[ProcessRef]:
        """Return the processes of a job's current attempt that were there when seen last."""
        return self._known.get(_folder(record), {}).values()

    def forget(self, record: JobRecord) -> None:
        """Forget an attempt that is over."""
        self._known.pop(_folder(record), None)
        self._looks.pop(_folder(record), None)


@dataclass(frozen=True)
class _Look:
    """What a look for the processes of an attempt came to, and when."""

    at: datetime
    sighting: Sighting

    def will_do(self, now: datetime, processes: Collection[ProcessRef]) -> bool:
        """Return whether it saw all of some processes, and not long ago."""
        is_new = (now - self.at).total_seconds() < _LOOK_EVERY_S
        return is_new and set(processes) == set(self.sighting.running)


def submission_id(record: JobRecord) -> str:
    """Return the Ray Job's id of a record's current attempt."""
    return f"{record.job_id}.{record.attempt}"


def _folder(record: JobRecord) -> str:
    return JobPaths(record.job_id).attempt(record.attempt).processes


def _heard_of(record: JobRecord, said: Heartbeat | None) -> datetime:
    at = said.at if said else None
    return max(record.changed_at, at) if at else record.changed_at


def _committed(outcome: Outcome | None, said: Heartbeat | None) -> int:
    at_last = outcome.progress if outcome is not None else 0
    return max(at_last, said.committed if said else 0)
