"""What must hold at every moment of a simulated life, and at its end."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from orchestrator.client.status import ListedJob, list_jobs
from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RECORD, RecordStore
from orchestrator.jobs.troubles import read_troubles
from orchestrator.lifecycle.state import TRANSITIONS, JobRecord, JobState
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from tests.nemesis.doubles import jobs
from tests.nemesis.doubles.cluster import SimulatedCluster
from tests.nemesis.doubles.users import Wish
from tests.support.fakes import MemoryTracking

LOOK_EVERY_S = 3
UNTRUE_AT_MOST_S = 30.0 + 2 * LOOK_EVERY_S
_COMMITS = ("/checkpoints/step-", "/samples/shard-")


@lru_cache(1024)
def _decoded(body: bytes) -> JobRecord:
    return RECORD.decode(body)


@dataclass
class Witness:
    """Keeps what it saw.

    Args:
        cluster: What is true of processes.

    Attributes:
        violations: What should never be, one line each.
        untrue_s: How long each wrong word stood, in seconds.
    """

    cluster: SimulatedCluster
    violations: list[str] = field(default_factory=list)
    untrue_s: list[float] = field(default_factory=list)
    _since: dict[str, datetime] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def say(self, what: str) -> None:
        """Note a violation, once."""
        if what not in self._said:
            self._said.add(what)
            self.violations.append(what)

    def written(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Look at a write: a record moves as the table says, under a fence that only grows."""
        if after is None or not key.endswith("/record.json") or before is None:
            return
        old, new = _decoded(before), _decoded(after)
        if new.fence < old.fence:
            self.say(f"{old.job_id}: fence {new.fence} wrote after {old.fence}")
        if new.attempt < old.attempt:
            self.say(f"{old.job_id}: attempt {new.attempt} after {old.attempt}")
        if new.state is not old.state:
            if new.state not in TRANSITIONS[old.state]:
                self.say(f"{old.job_id}: {old.state} became {new.state}")
            self._left(new)

    def _left(self, record: JobRecord) -> None:
        """Look at a record that just moved: what it left must be gone."""
        if record.state.has_processes:
            return
        working = [p for p in self.cluster.processes_of(record.job_id) if p.works]
        if working:
            roles = ", ".join(f"{p.ref.role} of attempt {p.attempt}" for p in working)
            self.say(f"{record.job_id}: {record.state} while {roles} lives")

    def look(self, store: ObjectStore) -> None:
        """Look at what is shown, and at what is so."""
        self._look_for_overlaps()
        if store.now().second % LOOK_EVERY_S == 0:
            for shown in list_jobs(store):
                self._compare(shown, store.now())

    def _look_for_overlaps(self) -> None:
        by_job: dict[str, set[int]] = {}
        for process in self.cluster.processes.values():
            if process.is_alive and process.works:
                by_job.setdefault(process.job_id, set()).add(process.attempt)
        for job_id, attempts in by_job.items():
            if len(attempts) > 1:
                self.say(f"{job_id}: attempts {sorted(attempts)} at once")

    def _compare(self, shown: ListedJob, now: datetime) -> None:
        if self._is_untrue(shown):
            since = self._since.setdefault(shown.job_id, now)
            if (now - since).total_seconds() > UNTRUE_AT_MOST_S:
                self.say(f"{shown.job_id}: shown {shown.state}, which it is not, since {since}")
        elif shown.job_id in self._since:
            lasted = now - self._since.pop(shown.job_id)
            self.untrue_s.append(lasted.total_seconds())

    def _is_untrue(self, shown: ListedJob) -> bool:
        if shown.kind in ("pipeline", "sweep"):
            return False
        lives = any(p.works for p in self.cluster.processes_of(shown.job_id))
        if shown.state is JobState.RUNNING:
            return not lives and not (shown.stale or shown.stalled or shown.has_trouble)
        return lives and not shown.state.has_processes and not shown.stale


def at_the_end(
    witness: Witness, store: ObjectStore, wishes: Mapping[str, Wish], server: MemoryTracking
) -> None:
    """Look at what a life has left, once nothing goes on."""
    records = RecordStore(store)
    for job_id, wish in wishes.items():
        for one in (job_id, *wish.children):
            _check_job(witness, records, one, wish, is_child=one != job_id)
    for key in [info.key for info in store.list_objects(keys.INBOX)]:
        witness.say(f"{key} is left in the inbox")
    for info in store.list_objects(keys.QUEUE):
        witness.say(f"{info.key} is left")
    for trouble in read_troubles(store):
        witness.say(f"the trouble of {trouble.job_id} is left: {trouble.what}, {trouble.why}")
    for process in witness.cluster.processes.values():
        if process.is_alive:
            witness.say(f"{process.ref.role} of {process.job_id} lives")
    _check_index(witness, store)
    _check_tracking(witness, records, wishes, server)


def _check_job(
    witness: Witness, records: RecordStore, job_id: str, wish: Wish, *, is_child: bool
) -> None:
    folder = JobPaths(job_id).folder
    if wish.is_deleted:
        for info in records.store.list_objects(folder):
            witness.say(f"{info.key} is left of a deleted job")
        return
    try:
        record = records.read(job_id).record
    except JobNotFoundError:
        if not is_child or wish.ends == {JobState.SUCCEEDED}:
            witness.say(f"{job_id} is lost")
        return
    ends = wish.ends | {JobState.CANCELLED} if is_child and len(wish.ends) > 1 else wish.ends
    if record.state not in ends:
        witness.say(f"{job_id} is {record.state} ({record.message}), not {sorted(ends)}")
    _check_history(witness, records, record)
    if record.state is JobState.SUCCEEDED:
        _check_work(witness, records.store, record)


def _check_history(witness: Witness, records: RecordStore, record: JobRecord) -> None:
    events = records.events(record.job_id)
    if [event.number for event in events] != list(range(1, len(events) + 1)):
        witness.say(f"{record.job_id}: its events have gaps")
    moves = [JobState(event.state) for event in events if event.state]
    path = " ".join(moves)
    if not moves or moves[0] is not JobState.QUEUED or moves[-1] is not record.state:
        witness.say(f"{record.job_id}: {record.state} by the history {path}")
    for before, after in itertools.pairwise(moves):
        if after not in TRANSITIONS[before]:
            witness.say(f"{record.job_id}: its history has {before} before {after}: {path}")
    if moves.count(JobState.STARTING) != record.attempt:
        witness.say(f"{record.job_id}: {record.attempt} attempts by the history {path}")


def _check_work(witness: Witness, store: ObjectStore, record: JobRecord) -> None:
    job = JobPaths(record.job_id)
    wanted: list[str] = []
    if record.kind == "train" and "smoke" not in record.name:
        wanted = [job.checkpoint(jobs.STEPS)]
    if record.kind == "sample":
        wanted = [job.manifest, *map(job.shard, range(jobs.SHARDS))]
    for key in wanted:
        if not store.exists(key):
            witness.say(f"{key} is lost")


def _check_index(witness: Witness, store: ObjectStore) -> None:
    records = RecordStore(store)
    for entry in list_jobs(store):
        try:
            record = records.read(entry.job_id).record
        except JobNotFoundError:
            witness.say(f"{entry.job_id} is listed and gone")
            continue
        if (entry.state, entry.attempt) != (record.state, record.attempt):
            witness.say(f"{entry.job_id} is {record.state}, and listed as {entry.state}")


def _check_tracking(
    witness: Witness, records: RecordStore, wishes: Mapping[str, Wish], server: MemoryTracking
) -> None:
    runs: dict[str, list[str]] = {}
    for run_id, job_id in server.jobs.items():
        if run_id not in server.deleted:
            runs.setdefault(job_id, []).append(run_id)
    for job_id, ids in runs.items():
        if len(ids) > 1:
            witness.say(f"{job_id} has {len(ids)} runs")
    whole = [(job, wish) for job, wish in wishes.items() if not wish.is_deleted]
    for one in [one for job, wish in whole for one in wish.children or (job,)]:
        _check_run(witness, records, one, server, runs.get(one, []))
    for info in records.store.list_objects(Mark.TRACKING.value):
        witness.say(f"{info.key} is left")


def _check_run(
    witness: Witness,
    records: RecordStore,
    job_id: str,
    server: MemoryTracking,
    run_ids: list[str],
) -> None:
    try:
        record = records.read(job_id).record
    except JobNotFoundError:
        return
    if record.kind != "train" or record.state is not JobState.SUCCEEDED:
        return
    if not run_ids:
        witness.say(f"{job_id} has no run")
        return
    values = server.metrics[run_ids[0]]
    told = Counter(value.step for value in values if value.name == "loss")
    if told != Counter(range(1, jobs.STEPS + 1)):
        witness.say(f"{job_id}: MLflow has the steps {sorted(told.elements())}")
