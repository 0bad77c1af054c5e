"""What is done to a real stack."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.store.keys import JobPaths
from tests.nemesis.place import registered
from tests.nemesis.plan import PlannedFault
from tests.nemesis.real.home import Home
from tests.nemesis.real.proxy import MODES
from tests.nemesis.real.witness import Victim, Watch

Fault = Callable[[Home, Watch, PlannedFault], bool]


def _pick(home: Home, planned: PlannedFault, name: str) -> int:
    """Return the pid of one process of a name, 0 if there is none."""
    pids = sorted(part.pid for part in home.parts() if part.name == name)
    return pids[int(planned.draw * len(pids))] if pids else 0


def _kill(pid: int, sign: int = signal.SIGKILL) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, sign)
        return True
    return False


def _killed(name: str) -> Fault:
    def strike(home: Home, watch: Watch, planned: PlannedFault) -> bool:
        pid = _pick(home, planned, name)
        if not pid:
            return False
        _note_victim(home, watch, pid, name)
        return _kill(pid)

    return strike


def _note_victim(home: Home, watch: Watch, pid: int, name: str) -> None:
    """Note whose attempt a process is, so that it is seen when that is told."""
    records = RecordStore(home.store)
    for one in registered(home.store):
        record = records.read(one.job_id).record
        is_current = record.state is JobState.RUNNING and record.attempt == one.attempt
        if is_current and one.ref.pid == pid:
            watch.victims.append(Victim(one.job_id, one.attempt, name, time.monotonic()))


def _stopped(name: str, most_s: float = 25.0) -> Fault:
    """Stop a process and let it go on; one that is killed meanwhile is not missed."""

    def strike(home: Home, watch: Watch, planned: PlannedFault) -> bool:
        pid = _pick(home, planned, name)
        if not pid or not _kill(pid, signal.SIGSTOP):
            return False
        wait_s = planned.between(2, most_s)
        threading.Timer(wait_s, _kill, (pid, signal.SIGCONT)).start()
        return True

    return strike


def _tree_killed(home: Home, watch: Watch, planned: PlannedFault) -> bool:
    """End Ray's head with all that it ever started, at once."""
    pid = _pick(home, planned, "ray")
    if not pid:
        return False
    leader = psutil.Process(pid)
    for process in [leader, *leader.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return True


def _store(mode: str) -> Fault:
    def strike(home: Home, watch: Watch, planned: PlannedFault) -> bool:
        home.proxy.disturb(mode, planned.between(2, 20))
        return True

    return strike


def _disk_filled(home: Home, watch: Watch, planned: PlannedFault) -> bool:
    return home.fill_disk(planned.between(2, 20))


VERBS = (("list",), ("status", "{job}"), ("up",), ("events", "{job}"), ("explain", "{job}"))


def _verb_killed(home: Home, watch: Watch, planned: PlannedFault) -> bool:
    """Kill a verb that looks, or `up`, in the middle."""
    jobs = RecordStore(home.store).queued_ids()
    words = VERBS[int(planned.draw * len(VERBS))]
    job = jobs[0] if jobs else "reference-train"
    process = home.start_verb(*[word.format(job=job) for word in words])
    time.sleep(planned.between(0.1, 1.5))
    process.kill()
    process.communicate()
    return True


def _two_ups(home: Home, watch: Watch, planned: PlannedFault) -> bool:
    for process in [home.start_verb("up") for _ in range(2)]:
        process.communicate()
    return True


def _shard_damaged(home: Home, watch: Watch, planned: PlannedFault) -> bool:
    """Flip a byte of a finished set; `verify` must say so, and `repair` bring the set back."""
    records = RecordStore(home.store)
    done = [job for job in watch.sets if records.read(job).record.state is JobState.SUCCEEDED]
    if not done:
        return False
    job_id = done[int(planned.draw * len(done))]
    shards = SampleShards(home.store, JobPaths(job_id))
    indices = sorted(shards.indices())
    commit = shards.find(indices[int(planned.draw * len(indices))])
    assert commit is not None
    body = bytearray(home.store.get(commit.data_key).body)
    body[len(body) // 2] ^= 1
    home.store.put(commit.data_key, bytes(body))
    if home.verb("samples", "verify", job_id).exit_code == 0:
        watch.say(f"{job_id}: a flipped bit was not seen")
    watch.repairs.append(job_id)
    return True


FAULTS: Mapping[str, tuple[float, Fault]] = {
    "driver killed": (3, _killed("driver")),
    "worker killed": (5, _killed("worker")),
    "orchestrator killed": (3, _killed("orchestrator")),
    "raylet killed": (0.7, _killed("raylet")),
    "gcs killed": (0.4, _killed("gcs")),
    "store killed": (1, _killed("store")),
    "MLflow killed": (1, _killed("mlflow")),
    "Ray's head killed as a tree": (0.7, _tree_killed),
    "driver stopped": (1.5, _stopped("driver")),
    "worker stopped": (2, _stopped("worker")),
    "orchestrator stopped": (2, _stopped("orchestrator", 40.0)),
    "raylet stopped": (0.5, _stopped("raylet", 12.0)),
    "store stopped": (1, _stopped("store", 15.0)),
    "MLflow stopped": (0.7, _stopped("mlflow")),
    **{f"the store: {mode}": (1.2, _store(mode)) for mode in MODES},
    "the disk full": (1.5, _disk_filled),
    "a verb killed": (3, _verb_killed),
    "two `up` at once": (0.7, _two_ups),
    "a shard damaged": (1.5, _shard_damaged),
}
"""How often each comes beside the others, and what does it (false where it has no victim)."""
