"""An orchestrator goes on until only the code that lies on its disk knows what is asked of it."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.client.submit import submit_job
from orchestrator.cluster.code_version import release
from orchestrator.controller import actor, leading
from orchestrator.jobs.troubles import read_troubles
from orchestrator.store.keys import JobPaths
from tests.support.world import World, train_job


class NoExporter:
    """Shows nothing."""

    def show(self, numbers: object) -> None:
        """Do nothing."""


class EnoughError(Exception):
    """The loop went round as often as a test wants."""


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Lets a world's orchestrator lead; returns its rounds, or raises after three."""

    def lead(world: World, has_changed: bool) -> int:
        rounds, step = 0, world.controller.step

        def counted() -> None:
            nonlocal rounds
            rounds += 1
            if rounds > 3:
                raise EnoughError
            step()

        monkeypatch.setattr(world.controller, "step", counted)
        monkeypatch.setattr(leading, "code_has_changed", lambda: has_changed)
        monkeypatch.setattr(leading, "LOOP_EVERY_S", 0.0)
        exporter: Any = NoExporter()
        leading.lead_until_outdated(world.controller, exporter)
        return rounds

    return lead


def asked_in_the_words_of_tomorrow(world: World) -> None:
    """Submit a job with a key that nobody here knows."""
    submit_job(world.store, train_job("b"), "b")
    paths = JobPaths("b")
    spec = json.loads(world.store.get(paths.spec).body)
    spec["spec"]["training"]["of_tomorrow"] = 1
    world.store.put(paths.spec, json.dumps(spec).encode())


def test_a_job_of_a_newer_version_ends_the_process_once_that_is_on_the_disk(
    led: Callable[..., int],
) -> None:
    """After an update it waited until somebody ended the old process by hand."""
    world = World()
    asked_in_the_words_of_tomorrow(world)
    assert led(world, has_changed=True) == 0  # at once


def test_without_other_code_the_old_process_goes_on_and_says_what_is_amiss(
    led: Callable[..., int],
) -> None:
    """Ending it would bring the same code back, again and again."""
    world = World()
    asked_in_the_words_of_tomorrow(world)
    with pytest.raises(EnoughError):
        led(world, has_changed=False)
    (trouble,) = read_troubles(world.store, "b")
    assert "of_tomorrow" in trouble.why
    assert f"the orchestrator runs {release()}: if the job is one of a newer" in trouble.why


def test_other_code_is_no_reason_to_end_while_all_is_understood(led: Callable[..., int]) -> None:
    """A package that is just being installed is half there."""
    world = World()
    submit_job(world.store, train_job("a"), "a")
    with pytest.raises(EnoughError):
        led(world, has_changed=True)


def test_the_actors_code_is_looked_up_where_it_is_started_anew() -> None:
    """Kept by value, as that of a module that runs as a program, it would stay the old one."""
    classes = inspect.getmembers(actor, inspect.isclass)
    assert [name for name, one in classes if one.__module__ == actor.__name__] == []
    assert "OrchestratorActor" in dict(classes)
