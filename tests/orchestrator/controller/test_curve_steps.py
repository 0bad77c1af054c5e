"""A training's checkpoints are evaluated while it goes on: none twice, none forgotten."""

import contextlib
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.cli.listing import job_table
from orchestrator.cli.progress import completed, pace_line
from orchestrator.client.deletion import delete_job, end_evaluations, find_deletable
from orchestrator.client.describe import describe_job
from orchestrator.client.status import job_status, list_jobs, request
from orchestrator.client.submit import submit_job
from orchestrator.controller.curve_steps import CurveControl
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.errors import OrchestratorError, StoreUnavailableError
from orchestrator.jobs.curve import BEST, CurvePoint, is_settled, put_point
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.prices import set_price
from orchestrator.jobs.submissions import read_submitted
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import Reason
from orchestrator.specs.envelope import Asked
from orchestrator.specs.measuring import EvaluationSpec, MetricsSpec
from orchestrator.specs.on_the_way import evaluation_at
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import CheckpointSpec
from orchestrator.specs.train import TrainJob
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from tests.support.fakes import FaultyStore
from tests.support.world import World, train_job


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with nothing in it."""
    monkeypatch.setenv("DDPMCTL_CACHE", str(tmp_path / "cache"))
    return World()


def training(keep_best: Any = "kid", **fields: Any) -> TrainJob:
    """Ten steps, a checkpoint at each second; those of 4, 8 and 10 are evaluated."""
    return train_job(
        "t",
        checkpoints=CheckpointSpec(every_steps=2, keep=1, keep_best=keep_best),
        evaluation=EvaluationSpec(metrics=MetricsSpec(every_steps=4, num_samples=50)),
        asks={"cpus_per_worker": 1, "gpus_per_worker": 0},
        **fields,
    )


def commit(world: World, step: int, folder: Path) -> None:
    """Commit a checkpoint as a training's worker does."""
    files = folder / f"files-{step}"
    files.mkdir()
    (files / "ema.safetensors").write_bytes(b"%d" % step)
    checkpoints = CheckpointStore(world.store, JobPaths("t"))
    if step % 4 == 0 or step == 10:
        checkpoints.refer(step, evaluation_at("t", "t", step).sample_id)
    checkpoints.commit(step, files, 1, {})
    checkpoints.retain(1)
    world.beat("t", step)


def begin(world: World, **fields: Any) -> None:
    """Submit the training and have it run."""
    world.cluster.cpus = 16
    submit_job(world.store, training(**fields), "t")
    world.step(3)
    world.begin("t")
    world.step()
    assert world.state("t") == "RUNNING"


def evaluate(world: World, step: int, kid: float, pid: int) -> None:
    """Have the jobs of a step run to their end, and find a value."""
    ids = evaluation_at("t", "t", step)
    for number, job_id in enumerate((ids.sample_id, ids.evaluate_id)):
        for _ in range(9):
            if world.state(job_id) == "STARTING":
                break
            world.step()
        world.begin(job_id, pid + number)
        world.step()
        if job_id == ids.evaluate_id:
            values = {"kid-pixels": kid, "kid-pixels_se": 0.001, "kid-pixels_floor": 0.0}
            put_point(
                world.store, "t", CurvePoint(step=step, at_ms=step, job_id=job_id, values=values)
            )
        world.end(job_id, Outcome(succeeded=True, progress=1), pid + number)
        world.step(3)
        assert world.state(job_id) == "SUCCEEDED"


def made(world: World) -> list[str]:
    """Return the ids of all jobs but the training."""
    return [job for job in world.store.list_folders(keys.JOBS) if job != "t"]


def kept(world: World) -> list[int]:
    """Return the steps of the training's checkpoints."""
    return CheckpointStore(world.store, JobPaths("t")).steps()


def test_each_checkpoint_that_is_due_gets_two_jobs_of_the_lowest_priority(
    world: World, tmp_path: Path
) -> None:
    """They draw from that very checkpoint, and stand below the training."""
    begin(world)
    commit(world, 2, tmp_path)
    world.step(2)
    assert made(world) == []
    commit(world, 4, tmp_path)
    world.step(2)
    assert made(world) == ["t-at-4", "t-at-4-samples"]
    drawn = read_submitted(world.records, "t-at-4-samples")
    assert isinstance(drawn.spec, SampleJob)
    assert drawn.spec.model_input is not None
    assert drawn.spec.model_input.checkpoint == (
        f"{world.store.uri}/jobs/t/checkpoints/step-000000004.json"
    )
    assert (drawn.origin.parent, drawn.origin.at_step) == ("t", 4)
    assert (world.record("t-at-4").priority, world.record("t-at-4").parent) == (0, "t")
    assert any("t-at-4" in event.message for event in world.records.events("t"))


def test_the_lease_is_renewed_for_each_checkpoint(world: World, tmp_path: Path) -> None:
    """After an outage there are many; a lease that ran out among them would begin it all anew."""
    begin(world)
    for step in (4, 8, 10):
        commit(world, step, tmp_path)
    seen = list[int]()

    def renew() -> None:
        seen.append(sum(key.endswith("/spec.json") for key in world.store.objects))

    CurveControl(world.store, world.records, renew).follow(world.controller.jobs)
    before = seen[0]
    assert seen == [before, before + 2, before + 4]


def test_the_last_checkpoint_is_evaluated_after_the_training_has_ended(
    world: World, tmp_path: Path
) -> None:
    """Nobody follows the training any more, and whatever was made goes on."""
    begin(world)
    commit(world, 10, tmp_path)
    world.end("t", Outcome(succeeded=True, progress=10))
    world.step(2)
    assert world.state("t") == "SUCCEEDED"
    assert made(world) == ["t-at-10", "t-at-10-samples"]
    assert not world.store.exists(Mark.QUEUE.key("t"))
    evaluate(world, 10, 0.5, 200)
    assert not world.store.exists(Mark.QUEUE.key("t-at-10"))


def test_the_best_checkpoint_stays_and_the_others_go(world: World, tmp_path: Path) -> None:
    """Each stays until it is evaluated, however many have come since; then only the best one."""
    begin(world)
    for step in (2, 4, 6, 8):
        commit(world, step, tmp_path)
    world.step(2)
    assert kept(world) == [4, 8]
    evaluate(world, 4, 0.2, 200)
    assert kept(world) == [4, 8]
    commit(world, 10, tmp_path)
    evaluate(world, 8, 0.1, 300)
    assert kept(world) == [8, 10]
    evaluate(world, 10, 0.3, 400)
    assert kept(world) == [8, 10]
    references = JobPaths("t").references
    assert [info.key for info in world.store.list_objects(references)] == [
        JobPaths("t").reference(8, BEST)
    ]


def test_without_keep_best_an_evaluated_checkpoint_goes_like_any_other(
    world: World, tmp_path: Path
) -> None:
    """An evaluation that was kept would keep its checkpoint for ever."""
    begin(world, keep_best=None)
    for step in (4, 6):
        commit(world, step, tmp_path)
    world.step(2)
    assert kept(world) == [4, 6]
    evaluate(world, 4, 0.2, 200)
    assert kept(world) == [6]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_an_orchestrator_that_dies_anywhere_doubles_and_forgets_nothing(
    tmp_path: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails at each call in turn; the next orchestrator goes on from what it holds."""
    monkeypatch.setenv("DDPMCTL_CACHE", str(tmp_path / "cache"))
    first = World()
    begin(first)
    commit(first, 4, tmp_path)
    number, died = 0, True
    while died:
        number += 1
        memory = first.store.copy()
        world = World(memory)
        world.cluster = copy.deepcopy(first.cluster)
        world.controller = world.new_controller()
        faulty = FaultyStore(memory, number, after=after, dead=True)
        _step_until_it_dies(world, faulty)
        died = faulty.num_calls >= number
        world.controller = world.new_controller()
        world.step(3)
        assert made(world) == ["t-at-4", "t-at-4-samples"], number
        told = [e for e in world.records.events("t") if "is evaluated by" in e.message]
        assert len(told) == 1, number
        states = [e.state for e in world.records.events("t-at-4") if e.state]
        assert states[:1] == ["QUEUED"]
    assert number > 10


def _step_until_it_dies(world: World, faulty: FaultyStore) -> None:
    lease = Lease(faulty, "doomed", term_s=1e9)
    with contextlib.suppress(StoreUnavailableError):
        world.store.delete(keys.LEASE)
        lease.acquire()
        doomed = Controller(faulty, world.cluster, lease)
        doomed.take_over()
        doomed.step()
        doomed.step()


def test_cancelling_the_training_ends_its_evaluations(world: World, tmp_path: Path) -> None:
    """Also those that an orchestrator which has just taken over has never seen."""
    begin(world)
    commit(world, 4, tmp_path)
    world.step(2)
    world.controller = world.new_controller()
    request(world.store, "t", Verb.CANCEL)
    world.step()
    world.end("t", Outcome(stopped=True, progress=4))
    world.step()
    world.end("t-at-4-samples", Outcome(stopped=True))
    world.step(5)
    assert world.state("t") == "CANCELLED"
    assert (world.state("t-at-4"), world.state("t-at-4-samples")) == ("CANCELLED", "CANCELLED")
    assert not list(world.store.list_objects(keys.QUEUE))


def test_what_fails_lets_go_of_its_checkpoint(world: World, tmp_path: Path) -> None:
    """A failed evaluation keeps nothing, and the training goes on."""
    begin(world)
    for step in (4, 6):
        commit(world, step, tmp_path)
    world.step(3)
    world.begin("t-at-4-samples", 300)
    world.step()
    broken = Outcome(reason=Reason.BAD_INPUT, message="no such thing")
    world.end("t-at-4-samples", broken, 300)
    world.step(8)
    world.begin("t-at-4", 400)
    world.step()
    world.end("t-at-4", broken, 400)
    world.step(3)
    assert kept(world) == [6]
    assert world.state("t") == "RUNNING"


def references(world: World) -> list[str]:
    """Return who holds which checkpoint of the training."""
    folder = JobPaths("t").references
    return [info.key.removeprefix(folder) for info in world.store.list_objects(folder)]


def cancel_evaluation(world: World, folder: Path) -> None:
    """Have the first checkpoint's evaluation begin, and end by a cancel of both its jobs."""
    begin(world)
    commit(world, 4, folder)
    world.step(3)
    for job_id in ("t-at-4", "t-at-4-samples"):
        request(world.store, job_id, Verb.CANCEL)
    world.step()
    world.end("t-at-4-samples", Outcome(stopped=True))
    world.step(4)
    assert world.state("t-at-4-samples") == "CANCELLED"
    assert references(world) == []


def test_cancelling_the_comparison_alone_lets_the_drawing_end(world: World, tmp_path: Path) -> None:
    """A worker that has yet to fetch the checkpoint would find it gone, and its job fail."""
    begin(world)
    for step in (4, 6):
        commit(world, step, tmp_path)
    world.step(3)
    world.begin("t-at-4-samples", 300)
    world.step()
    request(world.store, "t-at-4", Verb.CANCEL)
    world.step(3)
    assert (world.state("t-at-4"), world.state("t-at-4-samples")) == ("CANCELLED", "RUNNING")
    assert kept(world) == [4, 6]
    world.end("t-at-4-samples", Outcome(succeeded=True, progress=50), 300)
    world.step(4)
    assert world.state("t-at-4-samples") == "SUCCEEDED"
    assert kept(world) == [6]
    assert references(world) == []


def test_an_evaluation_that_is_asked_for_again_holds_its_checkpoint_again(
    world: World, tmp_path: Path
) -> None:
    """It was let go of, and the next checkpoint would have it deleted before it is drawn from."""
    cancel_evaluation(world, tmp_path)
    for job_id in ("t-at-4", "t-at-4-samples"):
        request(world.store, job_id, Verb.RETRY)
    world.step(2)
    commit(world, 6, tmp_path)
    assert kept(world) == [4, 6]
    evaluate(world, 4, 0.2, 500)
    assert references(world) == [f"step-{4:09d}-{BEST}"]


def test_an_orchestrator_that_takes_over_holds_nothing_for_what_has_ended(
    world: World, tmp_path: Path
) -> None:
    """It looks at all steps anew, and nobody would let go of the checkpoint again."""
    cancel_evaluation(world, tmp_path)
    world.controller = world.new_controller()
    world.step(3)
    assert references(world) == []
    commit(world, 6, tmp_path)
    assert kept(world) == [6]


def test_the_best_is_one_that_is_still_there(world: World, tmp_path: Path) -> None:
    """A comparison that was asked for again may come after its checkpoint has gone."""
    begin(world)
    for step in (4, 8):
        commit(world, step, tmp_path)
    world.step(2)
    evaluate(world, 4, 0.2, 200)
    point = CurvePoint(step=2, at_ms=2, job_id="t-at-2", values={"kid-pixels": 0.001})
    put_point(world.store, "t", point)
    evaluate(world, 8, 0.3, 300)
    commit(world, 10, tmp_path)
    assert kept(world) == [4, 10]
    assert f"step-{4:09d}-{BEST}" in references(world)


def test_a_cancelled_training_keeps_no_checkpoint_for_an_evaluation_that_nobody_makes(
    world: World, tmp_path: Path
) -> None:
    """It saves once more as it stops, and would hold that checkpoint for ever."""
    begin(world)
    world.step()
    request(world.store, "t", Verb.CANCEL)
    world.step()
    commit(world, 8, tmp_path)
    world.end("t", Outcome(stopped=True, progress=8))
    world.step(4)
    assert world.state("t") == "CANCELLED"
    assert made(world) == []
    assert kept(world) == [8]
    assert references(world) == []


def settled(world: World) -> bool:
    """Tell whether nobody needs the first checkpoint for an evaluation."""
    ids = evaluation_at("t", "t", 4)
    asked = {"sample_id": ids.sample_id, "evaluate_id": ids.evaluate_id}
    return is_settled(world.store, "t", 4, **asked)


def test_nobody_evaluates_a_checkpoint_again_that_was_evaluated(
    world: World, tmp_path: Path
) -> None:
    """An attempt that comes by a step again asks, before it keeps that checkpoint for anybody."""
    begin(world)
    commit(world, 4, tmp_path)
    assert not settled(world)
    world.step(2)
    assert not settled(world)
    evaluate(world, 4, 0.2, 200)
    assert settled(world)
    world.store.delete(JobPaths("t").curve_point(4))
    assert settled(world)
    world.store.delete(JobPaths("t-at-4").record)
    world.store.delete(JobPaths("t-at-4").spec)
    assert not settled(world)


def test_what_is_drawn_from_is_no_settled_checkpoint(world: World, tmp_path: Path) -> None:
    """The comparison alone was cancelled: its images are drawn all the same."""
    begin(world)
    commit(world, 4, tmp_path)
    world.step(2)
    request(world.store, "t-at-4", Verb.CANCEL)
    world.step(2)
    assert world.record("t-at-4").state.has_ended
    assert not world.record("t-at-4-samples").state.has_ended
    assert not settled(world)


def test_deleting_the_training_ends_its_evaluations_and_takes_them_along(
    world: World, tmp_path: Path
) -> None:
    """Nobody should have to name each of them; a training itself is not ended by a deletion."""

    def nobody_else(store: object, ids: object) -> list[str]:
        return []

    begin(world)
    commit(world, 4, tmp_path)
    world.step(2)
    with pytest.raises(OrchestratorError, match="job t is RUNNING"):
        find_deletable(world.store, "t", nobody_else)
    commit(world, 10, tmp_path)
    world.end("t", Outcome(succeeded=True, progress=10))
    world.step(2)
    ids = find_deletable(world.store, "t", nobody_else)
    steps = ("t-at-10", "t-at-10-samples", "t-at-4", "t-at-4-samples")
    assert sorted(ids) == sorted(("t", *steps))

    def steps_on(store: object, job_id: str) -> bool:
        world.step()
        if world.state(job_id) == "STOPPING":
            world.end(job_id, Outcome(stopped=True))
            world.step(2)
        return world.record(job_id).state.has_ended

    end_evaluations(world.store, ids, steps_on)
    assert {world.state(job_id) for job_id in steps} == {"CANCELLED"}
    delete_job(world.store, "t")
    world.step(2)
    assert world.store.list_folders(keys.JOBS) == []


def test_people_see_the_curve_and_what_is_on_its_way(world: World, tmp_path: Path) -> None:
    """`status` tells what each checkpoint is worth, `list` shows what lives below the training."""
    begin(world)
    commit(world, 4, tmp_path)
    world.step(2)
    evaluate(world, 4, 0.2, 200)
    commit(world, 8, tmp_path)
    world.step(4)
    shown = job_status(world.store, "t")
    assert sorted(child.step for child in shown.children) == ["at-4", "at-8", "at-8-samples"]
    assert completed(shown) == shown.done
    assert "at-8" not in pace_line(shown)
    status = describe_job(shown)
    assert "  at-4  SUCCEEDED, kid-pixels 0.2000 ± 0.0010 (floor 0.0000)  t-at-4" in status
    assert "  at-8-samples  STARTING" in status
    rows = [line.rstrip() for line in job_table(list_jobs(world.store)).splitlines()[1:]]
    assert [row.split()[0] for row in rows] == ["t", "t-at-8", "t-at-8-samples", "and"]
    assert rows[1].startswith("  t-at-8")


def test_evaluations_count_as_those_of_the_trainings_submitter(
    world: World, tmp_path: Path
) -> None:
    """Else a submitter's limit would not hold for what his trainings have drawn and compared."""
    world.cluster.cpus = 16
    submit_job(world.store, training(), "t", Asked({"": {}}, user="ann"))
    world.step(3)
    world.begin("t")
    commit(world, 4, tmp_path)
    world.step(2)
    ids = evaluation_at("t", "t", 4)
    assert [world.record(one).owner for one in (ids.sample_id, ids.evaluate_id)] == ["ann", "ann"]


def test_what_a_training_cost_is_told_beside_its_curve(world: World, tmp_path: Path) -> None:
    """Its evaluations have costs of their own; it is no group that has only those of its jobs."""
    set_price(world.store, "H100", 3600.0)
    begin(world)
    commit(world, 4, tmp_path)
    world.step(2)
    current = world.records.read("t")
    (attempt,) = current.record.attempts
    priced = replace(attempt, gpus=1.0, gpus_by_type={"H100": 1.0})
    world.records.write(current, replace(current.record, attempts=(priced,)))
    status = job_status(world.store, "t")
    assert status.children
    seconds = (world.store.now() - attempt.started_at).total_seconds()
    assert status.cost is not None
    assert status.cost.amount == pytest.approx(seconds)


def test_a_retried_evaluation_does_not_take_the_training_up_again(
    world: World, tmp_path: Path
) -> None:
    """A group lives again with its child; a training that has ended does not."""
    begin(world)
    commit(world, 10, tmp_path)
    world.end("t", Outcome(succeeded=True, progress=10))
    world.step(2)
    request(world.store, "t-at-10", Verb.CANCEL)
    world.step(3)
    assert world.state("t-at-10") == "CANCELLED"
    request(world.store, "t-at-10", Verb.RETRY)
    world.step(1)
    assert world.state("t-at-10") == "QUEUED"
    assert world.state("t") == "SUCCEEDED"
    assert not world.store.exists(Mark.QUEUE.key("t"))
