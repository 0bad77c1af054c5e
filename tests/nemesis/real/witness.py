"""Looks each second at what is shown, and at what /proc says; at the end, at what is left."""

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from orchestrator.client.status import ListedJob, job_status, list_jobs
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.troubles import read_troubles
from orchestrator.lifecycle.state import JobState
from orchestrator.store import keys
from tests.nemesis.place import Place
from tests.nemesis.real.shapes import LOG_EVERY, STEPS

UNTRUE_AT_MOST_S = 30.0
ENDS_WITHIN_S = 5.0  # between two looks at a job and at its processes
LONG_AGO = timedelta(seconds=20)  # whoever was gone stays gone
_GROUPS = ("pipeline", "sweep")


@dataclass
class Victim:
    """A process of an attempt that was killed, and when."""

    job_id: str
    attempt: int
    kind: str
    at: float


@dataclass
class Watch:
    """Keeps what it saw.

    Attributes:
        violations: What should never be.
        truth_s: By kind of fault, the seconds until the shown state said so.
        untrue_s: How long each wrong word stood.
        victims: Processes that were killed and whose end is not told yet.
        sets: Jobs that draw sets.
        repairs: Damaged ones, which are to be repaired.
        looks: How often it looked.
    """

    home: Place
    violations: list[str] = field(default_factory=list)
    truth_s: dict[str, list[float]] = field(default_factory=dict)
    untrue_s: list[float] = field(default_factory=list)
    victims: list[Victim] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    looks: int = 0
    _since: dict[str, float] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Look from now on."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join(30)

    def say(self, what: str) -> None:
        """Note a violation, once."""
        if what not in self._said:
            self._said.add(what)
            self.violations.append(what)
            print(f"VIOLATION {what}", flush=True)

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            with suppress(Exception):  # the store may be gone for now: nobody is shown anything
                self._look()

    def _look(self) -> None:
        for shown in list_jobs(self.home.store):
            if shown.kind not in _GROUPS:
                self._compare(shown)
        self.looks += 1

    def _compare(self, shown: ListedJob) -> None:
        began, job = time.monotonic(), shown.job_id
        self._settle_victims(shown, began)
        age = self.home.store.now() - shown.changed_at
        if shown.state.has_ended and job not in self._since and age > LONG_AGO:
            return
        alive = self.home.processes(job)
        if shown.state is JobState.RUNNING:
            is_told = shown.stale or shown.stalled or shown.has_trouble
            is_untrue, limit_s = not alive and not is_told, UNTRUE_AT_MOST_S
        else:
            strays = self.home.within_reach(alive)
            is_untrue = bool(strays) and not shown.state.has_processes and not shown.stale
            # Of an attempt that began since, the list hears with the orchestrator's next round.
            is_new = all(one.attempt > shown.attempt for one in strays)
            limit_s = UNTRUE_AT_MOST_S if is_new else ENDS_WITHIN_S
        if not is_untrue:
            if (since := self._since.pop(job, None)) is not None:
                self.untrue_s.append(began - since)
            return
        since = self._since.setdefault(job, began)
        if began - since > limit_s:
            roles = [(one.attempt, one.ref.role, one.ref.pid) for one in alive]
            self.say(f"{job}: shown {shown.state} of attempt {shown.attempt}, alive {roles}")

    def _settle_victims(self, shown: ListedJob, now: float) -> None:
        for victim in [v for v in self.victims if v.job_id == shown.job_id]:
            is_told = shown.stale or shown.stalled or shown.state is not JobState.RUNNING
            if is_told or shown.attempt > victim.attempt:
                self.victims.remove(victim)
                self.truth_s.setdefault(victim.kind, []).append(now - victim.at)


def look_at_the_end(watch: Watch, job_ids: list[str]) -> None:
    """Look at what is left, once all jobs have ended."""
    store = watch.home.store
    records = RecordStore(store)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and any(True for _ in store.list_objects(keys.TRACKING)):
        time.sleep(1)
    for prefix in (keys.INBOX, keys.QUEUE, keys.TRACKING):
        for info in store.list_objects(prefix):
            watch.say(f"{info.key} is left")
    for trouble in read_troubles(store):
        watch.say(f"the trouble of {trouble.job_id} is left: {trouble.what}, {trouble.why}")
    for job_id in job_ids:
        _look_at_job(watch, records, job_id)


def _look_at_job(watch: Watch, records: RecordStore, job_id: str) -> None:
    """Look at one job's processes, history, leftovers and run."""
    record = records.read(job_id).record
    for one in watch.home.processes(job_id):
        watch.say(f"{one.ref.role} of {job_id} lives: {one.ref.pid}")
    moves = [JobState(event.state) for event in records.events(job_id) if event.state]
    if moves[-1] is not record.state or moves.count(JobState.STARTING) != record.attempt:
        watch.say(f"{job_id}: {record.state}, {record.attempt} attempts, but {moves}")
    if record.state is not JobState.SUCCEEDED:
        return
    for info in records.store.list_objects(keys.JobPaths(job_id).folder):
        if "/partial/" in info.key:
            watch.say(f"{info.key} is left")
    if record.kind == "train":
        _check_run(watch, job_id)


def _check_run(watch: Watch, job_id: str) -> None:
    """Look at a training's run in MLflow: each value once."""
    run_id = job_status(watch.home.store, job_id).run_id
    if run_id is None:
        watch.say(f"{job_id} has no run")
        return
    told = Counter(watch.home.steps_told(run_id))
    if told != Counter(range(LOG_EVERY, STEPS + 1, LOG_EVERY)):
        watch.say(f"{job_id}: MLflow has the steps {sorted(told.elements())}")
