"""A run against a real stack: references first, then faults, then what is left."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import JobNotFoundError, StoreError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.stack.files import StackFolder
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking.lines import MetricsLine, decode_lines, segments
from tests.nemesis.place import Place
from tests.nemesis.plan import PlannedFault, planned_faults
from tests.nemesis.real.faults import FAULTS
from tests.nemesis.real.home import Home
from tests.nemesis.real.shapes import LOG_EVERY, SHAPES, Shape, write_files
from tests.nemesis.real.witness import Watch, look_at_the_end
from tests.nemesis.real.workload import Workload
from tests.nemesis.report import spread

UP_EVERY_S = 12.0
ENDS_WITHIN_S = 420.0
_WEIGHTS = {kind: weight for kind, (weight, _) in FAULTS.items()}


def against_a_stack(
    folder: Path, minutes: float, seed: int, every_s: float, names: Sequence[str] = ()
) -> dict[str, Any]:
    """Disturb a stack for some minutes, and return what came of it.

    Args:
        folder: Of the stack; what an earlier run left there is used.
        minutes: Of faults.
        seed: Of faults and jobs.
        every_s: Mean of the seconds between two faults.
        names: Of the shapes of jobs; all, if empty.
    """
    shapes = [shape for shape in SHAPES if not names or shape.name in names]
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder)
    home = Home(folder)
    try:
        home.up()
        references = run_undisturbed(home, shapes)
        return _disturbed(home, shapes, references, minutes, seed, every_s)
    finally:
        print(f"down: {home.down().exit_code}", flush=True)
        shutil.rmtree(StackFolder((folder / "home").resolve()).sockets, ignore_errors=True)


def run_undisturbed(home: Place, shapes: Sequence[Shape]) -> dict[str, object]:
    """Run each shape undisturbed, or take over what an earlier run left."""
    found: dict[str, object] = {}
    for shape in shapes:
        job_id = f"reference-{shape.name}"
        home.verb("submit", f"{shape.name}.yaml", "--id", job_id)
        answer = home.verb("wait", job_id)
        assert answer.exit_code == 0, (job_id, answer)
        found[shape.name] = shape.result(home.store, job_id)
        print(f"{job_id}: done", flush=True)
    return found


def _disturbed(
    home: Home,
    shapes: Sequence[Shape],
    references: dict[str, object],
    minutes: float,
    seed: int,
    every_s: float,
) -> dict[str, Any]:
    watch = Watch(home)
    workload = Workload(home, watch, seed, [shape.name for shape in shapes])
    watch.start()
    workload.start()
    faults = _strike(home, watch, minutes, planned_faults(seed, _WEIGHTS, every_s))
    workload.stop()
    print("no more faults", flush=True)
    home.up()
    wait_for_all(workload)
    watch.stop()
    told = compare(workload, shapes, references)
    faults["a verb that asks killed"] = workload.verbs_killed
    return {"faults": dict(faults), **told}


def _strike(home: Home, watch: Watch, minutes: float, plan: Iterator[PlannedFault]) -> Counter[str]:
    """Have faults strike until the time is up; what they ended is started again by `up`."""
    faults, end = Counter[str](), time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        planned = next(plan)
        time.sleep(planned.after_s)
        if _struck(home, watch, planned):
            faults[planned.kind] += 1
            print(f"{planned.number} {planned.kind}", flush=True)
        if not all(part.is_running for part in home.stack.status()):
            time.sleep(planned.between(0, UP_EVERY_S))
            home.up()
    return faults


def _struck(home: Home, watch: Watch, planned: PlannedFault) -> bool:
    try:
        return FAULTS[planned.kind][1](home, watch, planned)
    except (StoreError, JobNotFoundError):
        # It looked for a victim while the store did not answer, or a job's `submit` was killed.
        return False


def wait_for_all(workload: Workload) -> None:
    """Wait until all jobs have ended, or should have."""
    store, deadline = workload.home.store, time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline:
        live = set(RecordStore(store).queued_ids())
        if not live & set(workload.jobs) and not workload.watch.repairs:
            return
        time.sleep(1)


def compare(
    workload: Workload, shapes: Sequence[Shape], references: Mapping[str, object]
) -> dict[str, Any]:
    """Look at how each job ended, at its bits, and at what is left.

    Args:
        workload: Its jobs, which have ended.
        shapes: That they may have.
        references: The result of each shape, by its name.
    """
    store, watch = workload.home.store, workload.watch
    records, attempts = RecordStore(store), 0
    by_name = {shape.name: shape for shape in shapes}
    equal, redone, there = 0, 0, list[str]()
    for job_id, name in workload.jobs.items():
        try:
            record = records.read(job_id).record
        except JobNotFoundError:
            watch.say(f"{job_id} is lost")
            continue
        there.append(job_id)
        attempts += record.attempt
        redone += _steps_redone(store, job_id, record.attempt)
        if record.state not in workload.ends[job_id]:
            watch.say(f"{job_id} is {record.state}: {record.message}")
        if record.state is JobState.SUCCEEDED:
            result = by_name[name].result(store, job_id)
            equal += result == references[name]
            if result != references[name]:
                watch.say(f"{job_id}: {result}, not {references[name]}")
    look_at_the_end(watch, there)
    return {
        "jobs": len(workload.jobs),
        "attempts": attempts,
        "equal_to_the_bit": equal,
        "steps_redone": redone,
        "looks": watch.looks,
        "violations": watch.violations,
        "truth": {kind: spread(seconds) for kind, seconds in sorted(watch.truth_s.items())},
        "untrue": spread(watch.untrue_s),
    }


def _steps_redone(store: ObjectStore, job_id: str, attempts: int) -> int:
    """Return how many steps of a training were done and told again, in steps; 0 of other jobs."""
    told = [
        line.step
        for attempt in range(1, attempts + 1)
        for _, body in segments(store, JobPaths(job_id).attempt(attempt)).bodies()
        for line in decode_lines(body)[0]
        if isinstance(line, MetricsLine) and "loss" in line.values
    ]
    return LOG_EVERY * (len(told) - len(set(told)))
