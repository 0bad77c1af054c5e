"""`cancel` of several jobs, of patterns, and of what had ended."""

import pytest

from orchestrator.cli import changes
from orchestrator.client import asking
from orchestrator.client.submit import submit_job
from orchestrator.controller.models import ModelFinder, ModelResolution
from orchestrator.errors import BadInputError
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from tests.support.verbs import Verbs
from tests.support.world import World, train_job


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """An orchestrator that reads the requests when a verb makes sure that one runs."""
    world = World()
    monkeypatch.setattr(changes, "ensure_running", lambda _around, _say: world.step(2))
    for name in ("digits-a", "digits-b", "faces"):
        submit_job(world.store, train_job(name, workers=64), f"{name}-1")  # waits for room
    world.step()
    return world


def test_one_call_ends_several_jobs(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """By id, name and the beginning of an id; each counts once."""
    verbs = Verbs(monkeypatch, world.store)
    given = ["digits-a-1", "digits-a", "fac", "--grace-s", "0", "-o", "json"]
    done = verbs(changes.cancel_command, given)
    assert [(job["job_id"], job["state"]) for job in done.value] == [
        ("digits-a-1", "CANCELLED"),
        ("faces-1", "CANCELLED"),
    ]
    assert done.exit_code == 0
    assert world.state("digits-b-1") != "CANCELLED"


def test_a_pattern_means_live_jobs_alone(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """What has ended needs no end; a pattern that nothing live has is a mistake."""
    verbs = Verbs(monkeypatch, world.store)
    done = verbs(changes.cancel_command, ["--name", "digits-*"])
    assert done.out.count("is cancelled; its processes are gone") == 2
    assert world.state("faces-1") != "CANCELLED"
    with pytest.raises(BadInputError, match="no live job"):
        verbs(changes.cancel_command, ["--name", "digits-*"])


def test_one_job_that_had_ended_is_told_and_the_others_end(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """A list of jobs is gone through to its end; one job alone is one object, as before."""
    verbs = Verbs(monkeypatch, world.store)
    alone = verbs(changes.cancel_command, ["digits-a-1", "-o", "json"])
    assert alone.value["state"] == "CANCELLED"
    done = verbs(changes.cancel_command, ["digits-a-1", "digits-b-1"])
    assert done.out.splitlines() == [
        "digits-a-1 had ended before: it is CANCELLED",
        "digits-b-1 is cancelled; its processes are gone",
    ]
    assert verbs(changes.cancel_command, []).exit_code == 2


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_retry_that_fails_at_once_says_so(monkeypatch: pytest.MonkeyPatch, is_slow: bool) -> None:
    """It said "is FAILED" with exit code 0, after a second failure that nobody saw.

    Also where the request has been read, and the queue has not been gone through yet.
    """
    world = World()

    def fail(*_: object) -> ModelResolution:
        raise BadInputError("job t failed, so there is no model")

    def read(*_: object) -> None:
        world.controller.answer_requests()

    monkeypatch.setattr(ModelFinder, "find", fail)
    monkeypatch.setattr(asking, "ensure_running", read if is_slow else lambda *_: world.step())
    monkeypatch.setattr("orchestrator.cli.changes.time.sleep", lambda _: world.step())
    spec = SampleJob(kind="sample", name="s", model=ModelRef(job="t"), num_samples=4)
    submit_job(world.store, spec, "s")
    world.step(2)
    world.store.advance(5)
    done = Verbs(monkeypatch, world.store)(changes.retry_command, ["s"])
    assert done.out == (
        "s was queued again and is FAILED again: job t failed, so there is no model\n"
    )
    assert done.exit_code == 1
    moves = [event.state for event in world.records.events("s") if event.state]
    assert moves == ["QUEUED", "FAILED", "QUEUED", "FAILED"]
