"""What a stream of jobs and who looks at it need of the place where they run."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from orchestrator.cluster.process_search import ProcessRef
from orchestrator.jobs.processes import REGISTERED_PROCESS
from orchestrator.jobs.records import RecordStore
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


class Answer(NamedTuple):
    """What a verb came to; no exit code where it was killed."""

    exit_code: int | None
    value: Any
    stderr: str


class Place(Protocol):
    """A stack in a folder, or a cluster on hosts."""

    @property
    def store(self) -> ObjectStore:
        """The store, as who looks on sees it."""

    def start_verb(self, *words: str) -> "subprocess.Popen[str]":
        """Start a verb; `kill` ends all of it."""

    def verb(self, *words: str, timeout_s: float = 300.0) -> Answer:
        """Run a verb with `-o json`; one that takes too long is killed."""

    def processes(self, job_id: str = "") -> "list[Registered]":
        """Return the living processes of jobs that have some, or of one."""

    def within_reach(self, processes: "Sequence[Registered]") -> "list[Registered]":
        """Return those that somebody could end now; none on a host that is off the network."""

    def steps_told(self, run_id: str) -> list[int]:
        """Return the steps of all values of the loss that MLflow has of a run."""


class Registered(NamedTuple):
    """A process that an attempt of a job registered; it may have ended."""

    job_id: str
    attempt: int
    ref: ProcessRef


def registered(store: ObjectStore, job_id: str = "") -> Iterator[Registered]:
    """Yield what all attempts of one job registered, or of all jobs that have not ended."""
    records = RecordStore(store)
    for one in [job_id] if job_id else records.queued_ids():
        for number in range(1, records.read(one).record.attempt + 1):
            folder = JobPaths(one).attempt(number).processes
            for info in store.list_objects(folder):
                yield Registered(one, number, REGISTERED_PROCESS.decode(store.get(info.key).body))


def answer_of(process: "subprocess.Popen[str]", timeout_s: float) -> Answer:
    """Return what a verb with `-o json` came to; kill it after some seconds."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return Answer(None, None, process.communicate()[1])
    value = None
    with suppress(ValueError):
        value = json.loads(out) if out.strip() else None
    return Answer(process.returncode, value, err)
