"""Groups in the orchestrator's loop, on a store in memory and a cluster that is moved by hand."""

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.listing import job_table
from orchestrator.cli.progress import completed, pace_line
from orchestrator.client.datasets import with_datasets
from orchestrator.client.deletion import delete_job, find_deletable
from orchestrator.client.describe import describe_job, describe_plan
from orchestrator.client.garbage import collect_garbage
from orchestrator.client.plan import plan_of
from orchestrator.client.plan_forms import GroupPlan
from orchestrator.client.status import job_status, list_jobs, request
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.controller.loop import Controller
from orchestrator.errors import (
    BadInputError,
    OrchestratorError,
    SpecConflictError,
    StoreUnavailableError,
)
from orchestrator.jobs.inbox import Verb, read_requests
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.submissions import read_spec
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import Reason
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.specs.train import TrainJob
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from tests.support.fakes import FaultyStore, MemoryStore
from tests.support.world import World, train_job

JOB = """kind: train
    dataset: {source: digits}
    training: {num_steps: 10}
    resources: {cpus_per_worker: 1}
"""
CHAIN = f"""\
kind: pipeline
name: chain
steps:
  a:
    {JOB}
  b:
    after: a
    {JOB}
  c:
    after: b
    {JOB}
"""
PIDS = itertools.count(1000)
SWEEP = """\
kind: sweep
name: seeds
matrix: {training.seed: [0, 1, 2]}
job:
  kind: train
  dataset: {source: digits}
  training: {num_steps: 10}
  resources: {cpus_per_worker: 1}
"""


@pytest.fixture
def world() -> World:
    """A world with nothing in it."""
    return World()


def group_of(folder: Path, text: str, *overrides: str) -> GroupJob:
    """Return the group that a job file describes."""
    file = folder / "group.yaml"
    file.write_text(text)
    group = load_submission(file, overrides)
    assert isinstance(group, GroupJob)
    return group


def submit(world: World, folder: Path, text: str, *overrides: str) -> str:
    """Submit a group under the id `g`."""
    return submit_job(world.store, group_of(folder, text, *overrides), "g").job_id


def run(world: World, job_id: str) -> int:
    """Have a job that was started run; return the pid of its driver."""
    world.step(3)
    assert world.state(job_id) == "STARTING"
    pid = next(PIDS)
    world.begin(job_id, pid)
    world.step()
    assert world.state(job_id) == "RUNNING"
    return pid


def succeed(world: World, job_id: str) -> None:
    """Have a job run to its end."""
    pid = run(world, job_id)
    world.end(job_id, Outcome(succeeded=True, progress=10), pid)
    world.step(3)
    assert world.state(job_id) == "SUCCEEDED"


def fail(world: World, job_id: str) -> None:
    """Have a job run and fail in a way that is not tried again."""
    pid = run(world, job_id)
    world.end(job_id, Outcome(reason=Reason.DIVERGED, message="the loss is NaN"), pid)
    world.step(3)
    assert world.state(job_id) == "FAILED"


def created(world: World) -> list[str]:
    """Return the ids of all jobs but the group."""
    return [job for job in world.store.list_folders(keys.JOBS) if job != "g"]


def states(world: World, job_id: str = "g") -> list[str]:
    """Return the states that a job went through."""
    return [event.state for event in world.records.events(job_id) if event.state]


def test_a_pipeline_runs_its_steps_in_order_and_succeeds(world: World, tmp_path: Path) -> None:
    """One status, and each child an ordinary job."""
    submit(world, tmp_path, CHAIN)
    world.step(2)
    assert created(world) == ["g-a"]
    status = job_status(world.store, "g")
    assert (status.state, status.total, status.unit) == ("STARTING", 3, "steps")
    assert status.message == "0 of 3 steps done; b waits for a; c waits for b"
    succeed(world, "g-a")
    assert created(world) == ["g-a", "g-b"]
    assert job_status(world.store, "g").done == 1
    succeed(world, "g-b")
    succeed(world, "g-c")
    status = job_status(world.store, "g")
    assert (status.state, status.done) == ("SUCCEEDED", 3)
    assert [child.state for child in status.children] == ["SUCCEEDED"] * 3
    assert states(world) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert not world.store.exists(Mark.QUEUE.key("g"))
    assert {job.job_id: job.parent for job in list_jobs(world.store)} == {
        "g": None, "g-a": "g", "g-b": "g", "g-c": "g",
    }  # fmt: skip


def test_a_sample_step_names_the_job_of_the_step_that_it_draws_from(
    world: World, tmp_path: Path
) -> None:
    """The name of a step means nothing outside its pipeline."""
    text = CHAIN + "  draw:\n    kind: sample\n    model: {step: a}\n    num_samples: 4\n"
    submit(world, tmp_path, text)
    world.step(2)
    assert created(world) == ["g-a"]
    succeed(world, "g-a")
    spec = read_spec(world.records, "g-draw")
    assert isinstance(spec, SampleJob)
    assert spec.model.job == "g-a"


def test_a_pipeline_is_retried_from_the_step_that_failed(world: World, tmp_path: Path) -> None:
    """What is done stays done; the same job goes on from its last checkpoint."""
    submit(world, tmp_path, CHAIN)
    succeed(world, "g-a")
    fail(world, "g-b")
    record = world.record("g")
    assert (record.state, record.reason) == ("FAILED", Reason.DIVERGED)
    assert "b failed (1 of 3 steps done): the loss is NaN" in record.message
    assert created(world) == ["g-a", "g-b"]
    request(world.store, "g", Verb.RETRY)
    world.step()
    assert not list(read_requests(world.store)) or world.state("g") in ("STARTING", "RUNNING")
    succeed(world, "g-b")
    succeed(world, "g-c")
    assert (world.state("g"), world.record("g").attempt) == ("SUCCEEDED", 2)
    assert [world.record(f"g-{step}").attempt for step in "abc"] == [1, 2, 1]
    assert [job.job_id for job in list_jobs(world.store)].count("g") == 1


def test_a_sweep_goes_on_when_one_of_its_runs_fails(world: World, tmp_path: Path) -> None:
    """Its other results are worth having; in the end it says which one failed."""
    submit(world, tmp_path, SWEEP)
    fail(world, "g-002")
    assert world.state("g") == "RUNNING"
    assert "002 failed" in world.record("g").message
    succeed(world, "g-001")
    succeed(world, "g-003")
    record = world.record("g")
    assert (record.state, record.reason) == ("FAILED", Reason.DIVERGED)
    assert record.message.startswith("002 failed (2 of 3 runs done): the loss is NaN")


def test_no_more_runs_of_a_sweep_live_than_it_allows(world: World, tmp_path: Path) -> None:
    """The next one is created when one has ended."""
    submit(world, tmp_path, SWEEP, "max_concurrent=1")
    world.step(5)
    assert created(world) == ["g-001"]
    succeed(world, "g-001")
    world.step()
    assert created(world) == ["g-001", "g-002"]


def test_cancel_ends_every_child_and_no_further_one_is_created(
    world: World, tmp_path: Path
) -> None:
    """CANCELLED means that nothing of the group runs, and that nothing will."""
    submit(world, tmp_path, SWEEP, "max_concurrent=2")
    pid = run(world, "g-001")
    request(world.store, "g", Verb.CANCEL, 20)
    world.step(3)
    assert (world.state("g"), world.state("g-001")) == ("STOPPING", "STOPPING")
    assert world.record("g-001").stop_grace_s == 20
    world.end("g-001", Outcome(stopped=True, progress=4), pid)
    world.step()
    assert world.state("g") == "STOPPING"
    world.end("g-002", None)
    world.step(2)
    assert world.state("g") == "CANCELLED"
    assert [world.state(job) for job in created(world)] == ["CANCELLED", "CANCELLED"]
    assert created(world) == ["g-001", "g-002"]
    assert not list(world.store.list_objects(keys.INBOX))


def test_a_cancelled_group_is_retried_within_its_limit(world: World, tmp_path: Path) -> None:
    """Its cancelled children go back into the queue; those never created follow."""
    world.cluster.cpus = 0
    submit(world, tmp_path, SWEEP, "max_concurrent=2")
    world.step(3)
    request(world.store, "g", Verb.CANCEL)
    world.step(4)
    assert world.state("g") == "CANCELLED"
    world.cluster.cpus = 4
    request(world.store, "g", Verb.RETRY)
    for step in ("001", "002", "003"):
        succeed(world, f"g-{step}")
    assert world.state("g") == "SUCCEEDED"


def test_a_child_that_is_cancelled_and_retried_by_itself_is_shown_truthfully(
    world: World, tmp_path: Path
) -> None:
    """The group ends when it cannot go on, and lives again with its child."""
    submit(world, tmp_path, CHAIN)
    succeed(world, "g-a")
    request(world.store, "g-b", Verb.CANCEL)
    world.step()
    world.end("g-b", None)
    world.step(2)
    assert world.state("g") == "CANCELLED"
    assert "b was cancelled" in world.record("g").message
    request(world.store, "g-b", Verb.RETRY)
    world.step(3)
    assert world.state("g") == "RUNNING"
    succeed(world, "g-b")
    succeed(world, "g-c")
    assert world.state("g") == "SUCCEEDED"


def test_an_orchestrator_that_dies_between_two_children_is_followed_by_one_that_goes_on(
    world: World, tmp_path: Path
) -> None:
    """Each is created once, whoever created the first."""
    submit(world, tmp_path, SWEEP)
    world.step(2)
    for key in list(world.store.objects):
        if "g-003" in key:
            world.store.delete(key)  # it died before the last one
    world.store.delete(JobPaths("g-002").record)  # and before it adopted the second one
    world.controller = world.new_controller()
    for step in ("001", "002", "003"):
        succeed(world, f"g-{step}")
        world.controller = world.new_controller()
    world.step(3)
    assert world.state("g") == "SUCCEEDED"
    assert [world.record(job).attempt for job in created(world)] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_orchestrator_that_dies_at_any_call_leaves_a_group_that_goes_on(
    after: bool, tmp_path: Path
) -> None:
    """It may die between any two writes; the group has the same children in the end."""
    group, fail_at, was_hit = group_of(tmp_path, SWEEP), 0, True
    while was_hit:
        fail_at += 1
        world = World()
        submit_job(world.store, group, "g")
        store = FaultyStore(world.store, 0, after=after, dead=True)
        dying = Controller(store, world.cluster, world.lease)
        store.num_calls, store.fail_at = 0, fail_at
        was_hit = False
        try:
            for _ in range(3):
                world.store.advance(1)
                dying.step()
        except StoreUnavailableError:
            was_hit = True
        world.controller = world.new_controller()
        world.step(4)
        assert created(world) == ["g-001", "g-002", "g-003"]
        assert [world.record(job).attempt for job in created(world)] == [1, 1, 1]
        assert sorted(world.cluster.started) == ["g-001.1", "g-002.1", "g-003.1"]
        assert world.state("g") == "RUNNING"
    assert fail_at > 30


def test_a_child_whose_id_is_taken_fails_its_group(world: World, tmp_path: Path) -> None:
    """The other job's success must not pass for the step's."""
    world.cluster.cpus = 0
    submit_job(world.store, train_job("other"), "g-a")
    submit(world, tmp_path, CHAIN)
    world.step(5)
    record = world.record("g")
    assert (record.state, record.reason) == ("FAILED", Reason.BAD_INPUT)
    assert world.state("g-a") == "QUEUED"


def test_a_group_is_submitted_whole_or_not_at_all_and_only_once(
    world: World, tmp_path: Path
) -> None:
    """The spec of the group is the one object that counts."""
    group = group_of(tmp_path, CHAIN)
    assert submit_job(world.store, group, "g").is_new
    assert not submit_job(world.store, group, "g").is_new
    assert created(world) == []
    planned = job_status(world.store, "g").children
    assert [(c.job_id, c.state) for c in planned] == [
        ("g-a", None), ("g-b", None), ("g-c", None),
    ]  # fmt: skip
    with pytest.raises(SpecConflictError):
        submit_job(world.store, group_of(tmp_path, CHAIN, "priority=3"), "g")


def test_a_pipelines_first_steps_wait_for_smoke_tests_and_a_retry_does_not(
    world: World, tmp_path: Path
) -> None:
    """What the later steps need is not there yet; whoever retries has mended what was wrong."""
    submit_with_smoke(world.store, group_of(tmp_path, CHAIN), "g")
    fail(world, "g-a-smoke")
    world.step(3)
    assert (world.state("g-a"), world.state("g")) == ("FAILED", "FAILED")
    assert "its smoke test g-a-smoke is FAILED" in world.record("g-a").message
    assert world.record("g-a").attempt == 0
    request(world.store, "g", Verb.RETRY)
    for step in ("a", "b", "c"):
        succeed(world, f"g-{step}")
    assert world.state("g") == "SUCCEEDED"
    assert "g-b-smoke" not in created(world)


def test_all_runs_of_a_sweep_wait_for_one_smoke_test(world: World, tmp_path: Path) -> None:
    """A wrong path costs seconds, and not seconds for each run."""
    submit_with_smoke(world.store, group_of(tmp_path, SWEEP), "g")
    world.step(3)
    runs = sorted(job for job in created(world) if not job.endswith("-smoke"))
    assert [world.record(job).reason for job in runs] == [Reason.WAITING_FOR_SMOKE] * 3
    assert [job for job in created(world) if job not in runs] == [f"{runs[0]}-smoke"]
    succeed(world, f"{runs[0]}-smoke")
    for job in runs:
        succeed(world, job)
    assert world.state("g") == "SUCCEEDED"


def test_a_group_has_no_processes_and_names_the_jobs_that_have(
    world: World, tmp_path: Path
) -> None:
    """`logs` and `samples` ask for a job's own things."""
    submit(world, tmp_path, CHAIN)
    with pytest.raises(BadInputError, match="ask for one of its jobs: g-a, g-b, g-c"):
        read_spec(world.records, "g")


def test_a_run_at_work_is_not_counted_as_done(world: World, tmp_path: Path) -> None:
    """Two runs at half of their steps are not one that is done; only the bar moves."""
    submit(world, tmp_path, SWEEP)
    for job_id in ("g-001", "g-002"):
        run(world, job_id)
        beat = {"phase": "running", "done": 5, "total": 10, "unit": "steps", "committed": 0}
        world.store.put(JobPaths(job_id).attempt(1).heartbeat, json.dumps(beat).encode())
    world.step()
    status = job_status(world.store, "g")
    assert status.done == 0
    assert completed(status) == 1.0
    assert pace_line(status) == "0/3 runs; 3 at work"


def test_a_sweep_shows_what_each_of_its_runs_is_worth(world: World, tmp_path: Path) -> None:
    """Runs are compared by their numbers, which stood in MLflow alone."""
    submit(world, tmp_path, SWEEP)
    pid = run(world, "g-002")
    beat = {"phase": "running", "done": 10, "total": 10, "scores": {"bpd": 4.571, "bpd_se": 0.052}}
    world.store.put(JobPaths("g-002").attempt(1).heartbeat, json.dumps(beat).encode())
    world.step()
    shown = "10/10 steps, 4.57 ± 0.05 bits/dim  g-002  (training.seed=1)"
    assert f"002  RUNNING, {shown}" in describe_job(job_status(world.store, "g"))
    world.end("g-002", Outcome(succeeded=True, progress=10), pid)
    world.step(3)
    assert f"002  SUCCEEDED, {shown}" in describe_job(job_status(world.store, "g"))


def test_people_see_a_group_with_its_children(world: World, tmp_path: Path) -> None:
    """`list` nests them while the group lives and sums them up afterwards; `status` names all."""
    submit(world, tmp_path, CHAIN)
    succeed(world, "g-a")
    status = describe_job(job_status(world.store, "g"))
    assert "  message   1 of 3 steps done; c waits for b" in status
    assert "  b  STARTING  g-b" in status
    assert "  c  waits for b" in status
    table = job_table(list_jobs(world.store)).splitlines()
    assert [line.split("  ")[0] or line.split()[0] for line in table[1:]] == ["g", "g-a", "g-b"]
    succeed(world, "g-b")
    succeed(world, "g-c")
    jobs = list_jobs(world.store)
    assert job_table(jobs).splitlines()[-1] == "and 3 that others made: `ddpmctl list --all`"
    assert len(job_table(jobs, everything=True).splitlines()) == 5


def test_equal_images_of_a_groups_jobs_are_taken_in_once(tmp_path: Path) -> None:
    """A sweep of 256 runs over a large set must not read it 256 times."""
    calls = []
    for group in (group_of(tmp_path, SWEEP), group_of(tmp_path, SWEEP, "matrix.training.seed=[0]")):
        store = FaultyStore(MemoryStore(), 0)
        pinned = with_datasets(group, tmp_path, store)
        specs = [child.spec for child in pinned.children]
        assert len({spec.dataset.sha256 for spec in specs if isinstance(spec, TrainJob)}) == 1
        calls.append(store.num_calls)
    assert calls[0] == calls[1]


def test_the_plan_of_a_group_is_that_of_each_of_its_jobs(tmp_path: Path) -> None:
    """`--dry-run` shows what each will cost."""
    store = MemoryStore()
    plan = plan_of(with_datasets(group_of(tmp_path, SWEEP), tmp_path, store), store)
    assert isinstance(plan, GroupPlan)
    assert (plan.facts()["runs"], plan.at_once) == (3, 3)
    assert [child.settings for child in plan.children] == [
        {"training.seed": seed} for seed in range(3)
    ]
    assert "training.seed=2" in describe_plan(plan)


def ended_group(world: World, folder: Path) -> None:
    """Have a pipeline of two steps end: a training that saved nothing, and what draws from it."""
    text = CHAIN[: CHAIN.index("  b:")]
    submit(
        world,
        folder,
        text + "  draw:\n    kind: sample\n    model: {step: a}\n    num_samples: 4\n",
    )
    world.step(2)
    succeed(world, "g-a")
    world.step(3)
    assert (world.state("g-draw"), world.state("g")) == ("FAILED", "FAILED")


def test_a_group_is_deleted_with_its_jobs(world: World, tmp_path: Path) -> None:
    """In one go, though its steps refer to each other; not while anything else refers to one."""
    ended_group(world, tmp_path)
    outside = SampleJob(kind="sample", name="s", model=ModelRef(job="g-a"), num_samples=4)
    submit_job(world.store, outside, "outside")
    with pytest.raises(OrchestratorError, match="the sample set outside refers to job g;"):
        find_deletable(world.store, "g")
    world.step(3)
    delete_job(world.store, *find_deletable(world.store, "outside"))
    assert find_deletable(world.store, "g") == ["g", "g-draw", "g-a"]
    delete_job(world.store, "g")
    assert world.store.list_folders(keys.JOBS) == []
    assert list_jobs(world.store) == []


def test_nothing_is_shown_of_a_group_that_was_deleted_meanwhile(tmp_path: Path) -> None:
    """Who shows it may be slow: whoever deletes has listed its objects by then."""

    class Slow(MemoryStore):
        def put(self, key: str, *args: Any, **options: Any) -> str:
            if key == JobPaths("g").progress:
                for old in [key for key in self.objects if key.startswith(JobPaths("g").folder)]:
                    super().delete(old)
            return super().put(key, *args, **options)

    world = World(Slow())
    submit(world, tmp_path, CHAIN)
    world.step(2)
    assert [key for key in world.store.objects if key.startswith(JobPaths("g").folder)] == []


def test_a_group_of_which_a_job_runs_is_not_deleted(world: World, tmp_path: Path) -> None:
    """The running one is named."""
    ended_group(world, tmp_path)
    request(world.store, "g-a", Verb.REPAIR)
    world.step(3)
    with pytest.raises(OrchestratorError, match=r"job g is RUNNING; only ended jobs"):
        find_deletable(world.store, "g")


@pytest.mark.parametrize("fail_at", range(5, 40, 5))
def test_garbage_is_the_rest_of_a_group_whose_deletion_died(
    world: World, tmp_path: Path, fail_at: int
) -> None:
    """The group is the last to go, so its jobs are found by it."""
    ended_group(world, tmp_path)
    with contextlib.suppress(StoreUnavailableError):
        delete_job(FaultyStore(world.store, fail_at=fail_at, dead=True), "g")
    collect_garbage(world.store)
    assert world.store.list_folders(keys.JOBS) == []
