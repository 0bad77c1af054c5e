"""A stream of jobs of all kinds, asked for by verbs that are killed now and then."""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.client.status import job_status
from orchestrator.errors import JobNotFoundError, StoreError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from tests.nemesis.place import Place
from tests.nemesis.real.witness import Watch

LIVE_AT_ONCE = 4


@dataclass
class Workload:
    """Submits, cancels and takes up again; knows how each job is to end.

    Args:
        home: Where they run.
        watch: Told what should never be.
        seed: Of the order in which things are asked for.
        shapes: Names of the shapes of jobs.

    Attributes:
        jobs: The shape of each job, by id.
        ends: The states that it may end in.
        verbs_killed: Verbs that were killed in the middle and called again.
    """

    home: Place
    watch: Watch
    seed: int
    shapes: Sequence[str]
    jobs: dict[str, str] = field(default_factory=dict)
    ends: dict[str, set[JobState]] = field(default_factory=dict)
    verbs_killed: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Keep the queue full from now on."""
        self._chance = random.Random(self.seed)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing new."""
        self._ended.set()
        self._thread.join(600)

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            try:
                live = RecordStore(self.home.store).queued_ids()
            except StoreError:
                continue
            if len([job for job in live if job in self.jobs]) < LIVE_AT_ONCE:
                name = self.shapes[len(self.jobs) % len(self.shapes)]
                job_id = f"{name}-{len(self.jobs)}"
                self.jobs[job_id], self.ends[job_id] = name, {JobState.SUCCEEDED}
                if name == "sample":
                    self.watch.sets.append(job_id)
                self._surely("submit", f"{name}.yaml", "--id", job_id)
            elif self._chance.random() < 0.03:
                self._cancel(live)
            while self.watch.repairs:
                self._surely("samples", "repair", self.watch.repairs.pop())

    def _cancel(self, live: list[str]) -> None:
        """Cancel a job, and take it up again half of the times."""
        mine = sorted(job for job in live if job in self.jobs)
        if not mine:
            return
        job_id = self._chance.choice(mine)
        self.ends[job_id].add(JobState.CANCELLED)
        self._surely("cancel", job_id)
        if self._chance.random() < 0.5 and self._state(job_id, 120.0) is JobState.CANCELLED:
            self.ends[job_id] = {JobState.SUCCEEDED}
            self._surely("retry", job_id)

    def _state(self, job_id: str, within_s: float) -> JobState | None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and not self._ended.is_set():
            try:
                state = job_status(self.home.store, job_id).state
            except (StoreError, JobNotFoundError):
                state = None
            if state is not None and state.has_ended:
                return state
            time.sleep(0.5)
        return None

    def _surely(self, *words: str) -> None:
        """Call a verb, killed in the middle a third of the times, and again until it is done."""
        if self._chance.random() < 0.33:
            process = self.home.start_verb(*words)
            time.sleep(self._chance.uniform(0.2, 2.0))
            process.kill()
            process.communicate()
            self.verbs_killed += 1
        for _ in range(20):
            answer = self.home.verb(*words)
            if answer.exit_code == 0 or self._is_done(words):
                return
            is_early = words[0] == "samples"  # the job that repairs it goes on still
            if answer.exit_code == 2 and not is_early:
                self.watch.say(f"{' '.join(words)}: {answer.stderr[-400:]}")
                return
            time.sleep(2)
        self.watch.say(f"{' '.join(words)} never went: {answer.stderr[-400:]}")

    def _is_done(self, words: tuple[str, ...]) -> bool:
        """Tell whether what a verb was called for is so, whatever it said."""
        try:
            state = (
                RecordStore(self.home.store).read(words[-1]).record.state
            )  # its last word: a job
        except (StoreError, JobNotFoundError):
            return False
        is_so = {"submit": True, "retry": not state.has_ended, "cancel": state.has_ended}
        return is_so.get(words[0], False)
