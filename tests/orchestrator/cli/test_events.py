"""`events` of one job and of all, `status -w`, and the hints at a verb's end."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.cli.events import events_command
from orchestrator.cli.hints import next_step
from orchestrator.cli.jobs import status_command
from orchestrator.client.happenings import Happenings
from orchestrator.client.status import job_status, request
from orchestrator.client.submit import submit_job
from orchestrator.jobs.inbox import Verb
from orchestrator.lifecycle.state import JobState
from tests.support.verbs import Verbs
from tests.support.world import World, train_job


@pytest.fixture
def world() -> World:
    """Two jobs, of which the second was cancelled."""
    world = World()
    world.store.clock = datetime.now(UTC) - timedelta(hours=1)
    for name in ("a", "b"):
        submit_job(world.store, train_job(name, workers=64), f"{name}-1")
        world.step(2)
    request(world.store, "b-1", Verb.CANCEL, 0)
    world.step(3)
    return world


def test_events_of_all_jobs_come_by_time(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """What happened at night is one story, whichever jobs it was about."""
    verbs = Verbs(monkeypatch, world.store)
    value = verbs(events_command, ["-o", "json"]).value
    assert [event["at"] for event in value] == sorted(event["at"] for event in value)
    assert {event["job_id"] for event in value} == {"a-1", "b-1"}
    assert value[-1]["state"] == "CANCELLED"
    lines = verbs(events_command, ["--limit", "1"]).out.splitlines()
    assert len(lines) == 1
    assert " b-1 [" in lines[0]
    assert "CANCELLED" in lines[0]


def test_events_of_a_time_and_of_one_job(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """A look at the last minutes is not a look at all that ever was."""
    verbs = Verbs(monkeypatch, world.store)
    assert verbs(events_command, ["--since", "10m"]).out == ""
    assert "--since 7d" in verbs(events_command, ["--since", "10m"]).err
    own = verbs(events_command, ["b", "-o", "json"]).value
    assert "job_id" not in own[0]
    assert [event["number"] for event in own] == list(range(1, len(own) + 1))
    assert verbs(events_command, ["b", "--since", "10m", "-o", "json"]).value == []
    followed = verbs(events_command, ["b", "-f", "-o", "json"]).out.splitlines()
    assert [json.loads(line) for line in followed] == own


def test_a_second_look_finds_what_is_new(world: World) -> None:
    """`events -f` says each thing once."""
    happenings = Happenings(world.store)
    assert happenings.look()
    assert happenings.look() == []
    request(world.store, "a-1", Verb.CANCEL, 0)
    world.step(3)
    found = happenings.look()
    assert {one.job_id for one in found} == {"a-1"}
    assert found[-1].event.state == JobState.CANCELLED


def test_status_goes_on_until_the_job_has_ended(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """Without a terminal, a script reads one object a line."""
    verbs = Verbs(monkeypatch, world.store)
    lines = verbs(status_command, ["b", "-w", "-o", "json"]).out.splitlines()
    assert json.loads(lines[-1])["state"] == "CANCELLED"
    assert verbs(status_command, ["b", "-w"]).out.startswith("b-1  CANCELLED")


def test_states_are_coloured_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """NO_COLOR and a file get plain text."""
    verbs = Verbs(monkeypatch, world.store)
    assert "\x1b[" in verbs(status_command, ["b", "--color", "always"]).out
    assert "\x1b[" in verbs(events_command, ["b", "--color", "always"]).out
    assert "\x1b[" not in verbs(status_command, ["b"]).out


def test_each_state_has_a_next_step_that_names_the_job(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """On standard error alone: what a script reads does not change."""
    told = next_step(job_status(world.store, "b-1"))
    assert "ddpmctl retry b-1" in told
    done = Verbs(monkeypatch, world.store)(status_command, ["b"])
    assert told in done.err
    assert told not in done.out
    assert Verbs(monkeypatch, world.store)(status_command, ["b", "-o", "json"]).err == ""
