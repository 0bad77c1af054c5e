"""A run against a cluster on hosts: references first, then faults, then what is left."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from orchestrator.errors import JobNotFoundError, StoreError
from tests.hosts.namespaces import why_not
from tests.nemesis.hosts.faults import FAULTS
from tests.nemesis.hosts.home import Hosts
from tests.nemesis.hosts.shapes import SHAPES, write_files
from tests.nemesis.plan import PlannedFault, planned_faults
from tests.nemesis.real.run import compare, run_undisturbed, wait_for_all
from tests.nemesis.real.witness import Watch
from tests.nemesis.real.workload import Workload

_WEIGHTS = {kind: weight for kind, (weight, _) in FAULTS.items()}
SETTLES_S = 3.0  # before what ended is started anew


def against_hosts(minutes: float, seed: int, every_s: float) -> dict[str, Any]:
    """Disturb a cluster on hosts for some minutes, and return what came of it.

    Args:
        minutes: Of faults.
        seed: Of faults and jobs.
        every_s: Mean of the seconds between two faults.

    Raises:
        SystemExit: Hosts cannot be made here.
    """
    if reason := why_not():
        raise SystemExit(f"no hosts: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="nemesis-hosts-"))
    print(f"what the parts say: {folder}", flush=True)
    hosts = Hosts(folder)
    try:
        hosts.up()
        told = _disturbed(hosts, minutes, seed, every_s)
    finally:
        hosts.close()
    if not told["violations"]:
        shutil.rmtree(folder, ignore_errors=True)
    return told


def _disturbed(hosts: Hosts, minutes: float, seed: int, every_s: float) -> dict[str, Any]:
    write_files(hosts)
    references = run_undisturbed(hosts, SHAPES)
    watch = Watch(hosts)
    workload = Workload(hosts, watch, seed, [shape.name for shape in SHAPES])
    watch.start()
    workload.start()
    faults = _strike(hosts, watch, minutes, planned_faults(seed, _WEIGHTS, every_s))
    workload.stop()
    print("no more faults", flush=True)
    if not hosts.run_again():
        watch.say("the cluster never ran again")
    wait_for_all(workload)
    watch.stop()
    told = compare(workload, SHAPES, references)
    faults["a verb that asks killed"] = workload.verbs_killed
    return {"faults": dict(faults), **told}


def _strike(
    hosts: Hosts, watch: Watch, minutes: float, plan: Iterator[PlannedFault]
) -> Counter[str]:
    """Have faults strike until the time is up; what they ended is started anew after each."""
    faults, began = Counter[str](), time.monotonic()
    end = began + 60 * minutes
    while time.monotonic() < end:
        planned = next(plan)
        time.sleep(planned.after_s)
        if _struck(hosts, watch, planned):
            faults[planned.kind] += 1
            print(f"{time.monotonic() - began:.0f} s: {planned.number} {planned.kind}", flush=True)
            time.sleep(SETTLES_S)
        if not hosts.run_again():
            watch.say(f"after fault {planned.number}, {planned.kind}: the cluster never ran again")
            break
    return faults


def _struck(hosts: Hosts, watch: Watch, planned: PlannedFault) -> bool:
    """Have a fault strike; false where it has no victim, or its victim went before it."""
    try:
        return FAULTS[planned.kind][1](hosts, watch, planned)
    except (StoreError, JobNotFoundError, psutil.NoSuchProcess):
        return False
