"""What is done to hosts, and to processes within them."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from tests.hosts.cluster import HEAD, MLFLOW, STORE, WORKERS
from tests.nemesis.hosts.home import Hosts
from tests.nemesis.place import Registered, registered
from tests.nemesis.plan import PlannedFault
from tests.nemesis.real.witness import Victim, Watch

Strike = Callable[[Hosts, Watch, PlannedFault], bool]
_VERBS = (("list",), ("nodes",), ("status", "{job}"), ("events", "{job}"), ("explain", "{job}"))


def _cut(names: tuple[str, ...], most_s: float) -> Strike:
    def strike(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
        draw = planned.draw * len(names) % 1  # which host does not say for how long
        hosts.cut(planned.chosen(list(names)), 5 + draw * (most_s - 5))
        return True

    return strike


def _mlflow_cut(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
    """Cut MLflow off; nothing that is started anew waits for it, so others strike meanwhile."""
    threading.Thread(target=hosts.cut, args=(MLFLOW, planned.between(5, 40)), daemon=True).start()
    return True


def _host_killed(names: tuple[str, ...]) -> Strike:
    """End a host with all that it runs; whoever looks after the cluster starts it anew."""

    def strike(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
        name = planned.chosen(list(names))
        for one in _running(hosts):
            if one.ref.host == name:
                watch.victims.append(Victim(one.job_id, one.attempt, "host", time.monotonic()))
        hosts.cluster.network.hosts[name].kill()
        return True

    return strike


def _asked_to_end(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
    """SIGTERM to `ray start`: the node drains, and ends."""
    part = hosts.cluster.parts[planned.chosen(list(WORKERS))]
    if not part.is_alive:
        return False
    part.ask_to_end()
    return True


def _store_killed(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
    hosts.cluster.parts[STORE].kill()
    time.sleep(planned.between(0, 15))
    hosts.cluster.start_store()
    return True


def _mlflow_killed(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
    hosts.cluster.parts[MLFLOW].kill()
    time.sleep(planned.between(0, 15))
    hosts.cluster.start_mlflow()
    return True


def _running(hosts: Hosts) -> list[Registered]:
    """Return the living processes of attempts that are shown as RUNNING."""
    records, found = RecordStore(hosts.store), []
    for one in registered(hosts.store):
        record = records.read(one.job_id).record
        is_current = record.state is JobState.RUNNING and record.attempt == one.attempt
        if is_current and hosts.find(one.ref) is not None:
            found.append(one)
    return found


def _of_job(hosts: Hosts, planned: PlannedFault, role: str) -> Registered | None:
    """Return one of the processes of jobs that have a role."""
    named = [one for one in _running(hosts) if one.ref.role.startswith(role)]
    found = sorted(named, key=lambda one: (one.job_id, one.ref.role))
    return found[int(planned.draw * len(found))] if found else None


def _of_ray(hosts: Hosts, planned: PlannedFault, name: str) -> psutil.Process | None:
    """Return the orchestrator, or a process of Ray's on one of the hosts."""
    if name == "orchestrator":
        return hosts.leader()
    found = list(hosts.parts(name))
    return found[int(planned.draw * len(found))] if found else None


def _job_process_killed(role: str) -> Strike:
    def strike(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
        one = _of_job(hosts, planned, role)
        process = hosts.find(one.ref) if one else None
        if one is None or process is None:
            return False
        watch.victims.append(Victim(one.job_id, one.attempt, role, time.monotonic()))
        process.kill()
        return True

    return strike


def _job_process_stopped(role: str) -> Strike:
    def strike(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
        one = _of_job(hosts, planned, role)
        return one is not None and _stop(hosts.find(one.ref), planned.between(2, 25))

    return strike


def _killed(name: str) -> Strike:
    def strike(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
        process = _of_ray(hosts, planned, name)
        if process is None:
            return False
        process.kill()
        return True

    return strike


def _stopped(name: str, most_s: float) -> Strike:
    def strike(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
        return _stop(_of_ray(hosts, planned, name), planned.between(2, most_s))

    return strike


def _stop(process: psutil.Process | None, seconds: float) -> bool:
    """Stop a process and let it go on; one that is killed meanwhile is not missed."""
    if process is None:
        return False
    process.suspend()
    threading.Timer(seconds, _go_on, (process,)).start()
    return True


def _go_on(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()


def _verb_killed(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
    """Kill a verb that looks in the middle; those that ask are killed by who asks."""
    jobs = RecordStore(hosts.store).queued_ids()
    words = _VERBS[int(planned.draw * len(_VERBS))]
    process = hosts.start_verb(*[word.format(job=jobs[0] if jobs else "train") for word in words])
    time.sleep(planned.between(0.1, 1.5))
    process.kill()
    process.communicate()
    return True


FAULTS: Mapping[str, tuple[float, Strike]] = {
    "a worker's host cut off": (3, _cut(WORKERS, 60.0)),
    "a worker's host killed": (2.5, _host_killed(WORKERS)),
    "the head's host killed": (1, _host_killed((HEAD,))),
    "a worker's Ray asked to end": (2, _asked_to_end),
    "driver killed": (2, _job_process_killed("driver")),
    "worker killed": (3, _job_process_killed("worker")),
    "orchestrator killed": (2, _killed("orchestrator")),
    "raylet killed": (1, _killed("raylet")),
    "GCS killed": (0.5, _killed("gcs_server")),
    "driver stopped": (1, _job_process_stopped("driver")),
    "worker stopped": (1.5, _job_process_stopped("worker")),
    "orchestrator stopped": (1.5, _stopped("orchestrator", 40.0)),
    "raylet stopped": (0.7, _stopped("raylet", 12.0)),
    "GCS stopped": (0.5, _stopped("gcs_server", 12.0)),
    "the store cut off": (1.5, _cut((STORE,), 30.0)),
    "the store killed": (1.5, _store_killed),
    "MLflow cut off": (1, _mlflow_cut),
    "MLflow killed": (1, _mlflow_killed),
    "a verb killed": (1.5, _verb_killed),
}
"""How often each comes beside the others, and what does it (false where it has no victim)."""
