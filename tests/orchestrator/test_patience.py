"""What never answers: nothing waits for it for ever."""

import socket
import time
from collections.abc import Iterator

import pytest

from orchestrator import ray_jobs
from orchestrator.errors import RayUnavailableError
from orchestrator.orchestrator_actor import end_if_stuck
from orchestrator.ray_jobs import RayJobs


@pytest.fixture
def silent_address() -> Iterator[str]:
    """The address of a server that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_ray_is_given_up_and_not_asked_again_at_once(
    silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that asks for each of many jobs has a lease to renew."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "any")
    monkeypatch.setattr(ray_jobs, "ANSWER_WITHIN_S", 0.5)
    jobs = RayJobs(silent_address)
    with pytest.raises(RayUnavailableError, match="does not answer"):
        jobs.status("a.1")
    monkeypatch.setattr(ray_jobs, "ANSWER_WITHIN_S", 3600.0)  # asking would take that long
    for verb in (jobs.status, jobs.message, jobs.logs, jobs.stop):
        with pytest.raises(RayUnavailableError, match="in vain"):
            verb("b.1")
    time.sleep(0.5)
    monkeypatch.setattr(ray_jobs, "ANSWER_WITHIN_S", 0.1)
    with pytest.raises(RayUnavailableError, match="timed out"):
        jobs.status("a.1")


def test_a_process_whose_loop_is_stuck_ends() -> None:
    """Its lease runs out, but nobody else would start an orchestrator."""
    signs = iter([1, 2, 2, 3, 3, 3, 3, 4])
    looks: list[int] = []

    def look() -> int:
        looks.append(next(signs))
        return looks[-1]

    end_if_stuck(look, lambda: looks.append(-1), look_every_s=0.0, patience=3)
    assert looks == [1, 2, 2, 3, 3, 3, 3, -1]
