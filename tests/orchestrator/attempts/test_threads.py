"""How many threads a worker computes with."""

import os

import pytest

from orchestrator.attempts.compute import threads_of


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 2), (3, 2), (64, 2)])
def test_threads_are_not_more_than_a_machine_can_run(
    monkeypatch: pytest.MonkeyPatch, cpus: int, threads: int
) -> None:
    """A head may be told of more CPUs than there are; threads then wait for each other."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert threads_of(cpus) == threads
