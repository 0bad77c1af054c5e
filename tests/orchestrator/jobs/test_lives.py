"""Lives of jobs of every kind, with a fault at each single write: none leaves a false history."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from orchestrator.client.status import list_jobs, request
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.controller.models import ModelFinder, ModelResolution
from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.inbox import Verb
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState, Reason
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from tests.support.failing import FailingWorld, check_history, history
from tests.support.models import model_of
from tests.support.world import train_job

_S = JobState
SLOW = ("pipeline", "sweep", "cancelled_sweep")
OTHER_MODES = ("refused", "unanswered", "repeated")
JOB = """kind: train
    dataset: {source: digits}
    training: {num_steps: 10}
    resources: {cpus_per_worker: 1}
"""
GROUPS = {
    "pipeline": f"kind: pipeline\nname: g\nsteps:\n  a:\n    {JOB}\n  b:\n    after: a\n    {JOB}",
    "sweep": f"kind: sweep\nname: g\nmatrix: {{training.seed: [0, 1]}}\njob:\n    {JOB}",
}


def submit(world: FailingWorld, job_id: str = "j") -> None:
    """Queue a training."""
    world.ask(lambda: submit_job(world.store, train_job(), job_id))


def ask(world: FailingWorld, job_id: str, verb: Verb) -> None:
    """Put a request into the inbox."""
    world.ask(lambda: request(world.store, job_id, verb))


def run(world: FailingWorld, job_id: str) -> int:
    """Have a job run; return its driver's pid."""
    world.until(job_id, _S.STARTING)
    pid = 1000 * world.record(job_id).attempt + len(world.store.objects)
    world.begin(job_id, pid)
    world.until(job_id, _S.RUNNING)
    return pid


def end(world: FailingWorld, job_id: str, outcome: Outcome | None, *states: JobState) -> None:
    """End a job's attempt and see it come to one of some states."""
    pid = run(world, job_id)
    world.end(job_id, outcome, pid)
    world.until(job_id, *states)


def succeed(world: FailingWorld, job_id: str) -> None:
    """Have a job run to its end."""
    end(world, job_id, Outcome(succeeded=True, progress=10), _S.SUCCEEDED)


def fail(world: FailingWorld, job_id: str) -> None:
    """Have a job run and fail for good."""
    end(world, job_id, Outcome(reason=Reason.DIVERGED, message="NaN"), _S.FAILED)


def tried_again(world: FailingWorld) -> None:
    """A training loses a worker, is tried again, succeeds."""
    submit(world)
    end(world, "j", Outcome(reason=Reason.WORKER_LOST, message="lost"), _S.QUEUED)
    world.store.advance(60)
    succeed(world, "j")


def vanished(world: FailingWorld) -> None:
    """A driver dies without a word."""
    submit(world)
    end(world, "j", None, _S.QUEUED)
    world.store.advance(60)
    succeed(world, "j")


def cancelled_in_the_queue(world: FailingWorld) -> None:
    """A job is cancelled before it starts, and retried."""
    world.cluster.cpus = 0
    submit(world)
    world.step()
    ask(world, "j", Verb.CANCEL)
    world.until("j", _S.CANCELLED)
    world.cluster.cpus = 4
    ask(world, "j", Verb.RETRY)
    world.until("j", _S.QUEUED, _S.STARTING)
    succeed(world, "j")


def cancelled_at_work(world: FailingWorld) -> None:
    """A job is cancelled while it runs."""
    submit(world)
    pid = run(world, "j")
    ask(world, "j", Verb.CANCEL)
    world.until("j", _S.STOPPING)
    world.end("j", Outcome(stopped=True, progress=4), pid)
    world.until("j", _S.CANCELLED)


def failed_and_retried(world: FailingWorld) -> None:
    """A job fails, is retried by its user, succeeds."""
    submit(world)
    fail(world, "j")
    world.step()
    ask(world, "j", Verb.RETRY)
    world.until("j", _S.QUEUED, _S.STARTING)
    succeed(world, "j")


def repaired(world: FailingWorld) -> None:
    """A set that was whole is drawn again in part."""
    submit(world, "t")
    succeed(world, "t")
    world.store.put(JobPaths("t").checkpoint(10), b"{}")
    spec = SampleJob(kind="sample", name="a", model=ModelRef(job="t"), num_samples=4)
    world.ask(lambda: submit_job(world.store, spec, "j"))
    succeed(world, "j")
    world.step()
    ask(world, "j", Verb.REPAIR)
    world.until("j", _S.QUEUED, _S.STARTING)
    succeed(world, "j")


def preempted(world: FailingWorld) -> None:
    """A job makes room for one of more weight."""
    submit(world)
    world.cluster.cpus = 1
    pid = run(world, "j")
    world.ask(lambda: submit_job(world.store, train_job("b", priority=90), "urgent"))
    world.until("j", _S.STOPPING)
    world.end("j", Outcome(stopped=True, progress=4), pid)
    world.until("j", _S.QUEUED)
    succeed(world, "urgent")
    succeed(world, "j")


def behind_a_smoke_test(world: FailingWorld) -> None:
    """A job waits for its smoke test."""
    world.ask(lambda: submit_with_smoke(world.store, train_job(workers=2), "j"))
    succeed(world, "j-smoke")
    succeed(world, "j")


def cancelled_with_its_smoke_test(world: FailingWorld) -> None:
    """One cancel ends both."""
    world.ask(lambda: submit_with_smoke(world.store, train_job(workers=2), "j"))
    pid = run(world, "j-smoke")
    ask(world, "j", Verb.CANCEL)
    world.until("j-smoke", _S.STOPPING)
    world.end("j-smoke", Outcome(stopped=True), pid)
    world.until("j-smoke", _S.CANCELLED)
    world.until("j", _S.CANCELLED)


@cache
def group_of(kind: str) -> GroupJob:
    """Return a group of two jobs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(GROUPS[kind])
        spec = load_submission(path)
    assert isinstance(spec, GroupJob)
    return spec


def group(world: FailingWorld, kind: str) -> list[str]:
    """Queue a group and return the ids of its jobs."""
    spec = group_of(kind)
    world.ask(lambda: submit_job(world.store, spec, "g"))
    return [child.job_id for child in spec.with_ids("g").children]


def pipeline(world: FailingWorld) -> None:
    """One step after the other; the second fails and is taken up again with its group."""
    first, second = group(world, "pipeline")
    appear(world, first)
    succeed(world, first)
    appear(world, second)
    fail(world, second)
    world.until("g", _S.FAILED)
    world.step()
    ask(world, "g", Verb.RETRY)
    world.until("g", _S.RUNNING, _S.STARTING)
    succeed(world, second)
    world.until("g", _S.SUCCEEDED)


def appear(world: FailingWorld, job_id: str) -> None:
    """Run the loop until a job of a group is there."""
    for _ in range(12):
        try:
            world.record(job_id)
        except JobNotFoundError:
            world.step()
        else:
            return


def sweep(world: FailingWorld) -> None:
    """Two runs beside each other, both succeed."""
    runs = group(world, "sweep")
    for job_id in runs:
        appear(world, job_id)
        succeed(world, job_id)
    world.until("g", _S.SUCCEEDED)


def cancelled_sweep(world: FailingWorld) -> None:
    """A group is cancelled and takes its jobs with it."""
    runs = group(world, "sweep")
    for job_id in runs:
        appear(world, job_id)
    pids = {job_id: run(world, job_id) for job_id in runs}
    ask(world, "g", Verb.CANCEL)
    for job_id, pid in pids.items():
        world.until(job_id, _S.STOPPING)
        world.end(job_id, Outcome(stopped=True), pid)
    world.until("g", _S.CANCELLED)


LIVES: dict[str, Callable[[FailingWorld], None]] = {
    life.__name__: life
    for life in (
        *(tried_again, vanished, cancelled_in_the_queue, cancelled_at_work, failed_and_retried),
        *(repaired, preempted, behind_a_smoke_test, cancelled_with_its_smoke_test),
        *(pipeline, sweep, cancelled_sweep),
    )
}


@pytest.fixture(autouse=True)
def _found_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint that a set draws from is found at once."""
    monkeypatch.setattr(ModelFinder, "find", lambda *_: ModelResolution(model_of("t")))


def lived(name: str, fail_at: int = 0, mode: str = "") -> FailingWorld:
    """Live a life with a fault at one write."""
    world = FailingWorld()
    world.store.fail_at, world.store.mode = fail_at, mode
    LIVES[name](world)
    world.step(2)
    return world


def ends(world: FailingWorld) -> dict[str, tuple[str, int]]:
    """Return what each job came to, and in how many attempts."""
    found = (world.record(job_id) for job_id in world.store.list_folders(keys.JOBS))
    return {record.job_id: (str(record.state), record.attempt) for record in found}


def words(world: FailingWorld, job_id: str) -> list[str]:
    """Return what a history tells, without what waited for a moment."""
    told = (event.message for event in world.records.events(job_id))
    return [message for message in told if "this once" not in message]


def check(world: FailingWorld, calm: FailingWorld, mode: str) -> None:
    """Check that the jobs ended as in a calm life, and that their histories are whole and true."""
    assert ends(world) == ends(calm)
    for job_id in ends(calm):
        check_history(world, job_id)
        told, before = words(world, job_id), words(calm, job_id)
        if mode in ("refused", "unanswered"):  # a group may look at its jobs a round later
            told, before = ([w for w in some if "is in the queue" in w] for some in (told, before))
        assert told == before
    listed = {job.job_id: job.state for job in list_jobs(world.store)}
    assert listed == {job_id: state for job_id, (state, _) in ends(calm).items()}
    assert not list(world.store.list_objects(keys.INBOX))


def test_an_undisturbed_life_has_all_its_moves() -> None:
    """What the others are compared with."""
    assert [state for state, _ in history(lived("tried_again"), "j")] == [
        *("QUEUED", "STARTING", "RUNNING", "STOPPING"),
        *("QUEUED", "STARTING", "RUNNING", "SUCCEEDED"),
    ]


GROUPS_TOO = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LIVES]


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS_TOO)
def test_a_fault_at_any_write_leaves_histories_without_gaps_or_doubles(name: str) -> None:
    """Of eight moves seven were lost for good, and one whose answer was lost was told twice.

    Death after a write is death before the next one; the other faults take turns.
    """
    calm = lived(name)
    assert calm.store.num_writes > 20
    for fail_at in range(1, calm.store.num_writes + 1):
        for mode in ("dies after", OTHER_MODES[fail_at % len(OTHER_MODES)]):
            world = lived(name, fail_at, mode)
            try:
                check(world, calm, mode)
            except AssertionError as error:
                where = f"{name} {mode} at write {fail_at}, {world.store.failed}"
                raise AssertionError(where) from error


def test_a_move_that_was_not_told_is_told_before_a_request_moves_a_job_that_nobody_holds() -> None:
    """Its orchestrator died between record and event, and the next one could not adopt it yet."""
    world = FailingWorld()
    submit(world)
    world.cluster.cpus = 0
    ask(world, "j", Verb.CANCEL)
    world.until("j", _S.CANCELLED)
    world.step()
    current = world.records.read("j")
    queued = current.record.moved_to(_S.QUEUED, at=world.store.now(), message="retry")
    world.records.write(current, queued)  # and no event, and no mark that has it adopted
    ask(world, "j", Verb.CANCEL)
    world.step(2)
    assert world.state("j") == "CANCELLED"
    check_history(world, "j")
