"""`explain` says what is so, and from whom it has that."""

import pytest

from orchestrator.cli.queue import explain_command
from orchestrator.client.submit import submit_job
from tests.support.verbs import Verbs
from tests.support.world import World, train_job


def test_a_reason_of_an_orchestrator_that_is_gone_is_not_told_as_today_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With Ray gone it told the place in line and who is ahead, and not that nothing moves."""
    world = World()
    submit_job(world.store, train_job(workers=64), "b")
    world.step(2)
    verbs = Verbs(monkeypatch, world.store)
    done = verbs(explain_command, ["b"])
    assert done.out.startswith("b  never: even with nothing else running ")
    assert done.err == ""
    world.store.advance(600)
    done = verbs(explain_command, ["b", "-o", "json"])
    assert done.value["verdict"] == "never"
    assert "no orchestrator has acted since 2026-01-01" in done.err
