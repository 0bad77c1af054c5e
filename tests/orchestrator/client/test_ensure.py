"""Whoever needs an orchestrator has one: known by its lease and the Ray that it lives in."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.client import ensure
from orchestrator.client.ensure import ensure_orchestrator
from orchestrator.cluster.code_version import code_of, package_version, release
from orchestrator.cluster.patience import patience_s
from orchestrator.errors import BadInputError, RayRefusedError, RayUnavailableError
from orchestrator.jobs.lease_view import read_lease
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.store import keys
from tests.support.fakes import MemoryStore


class FakeRay:
    """Ray's Jobs API, which starts an orchestrator after so many refusals.

    Args:
        store: Where that orchestrator writes its lease.
        refusals: What is raised before.
    """

    def __init__(self, store: MemoryStore, *refusals: Exception) -> None:
        self.submitted: list[str] = []
        self._store = store
        self._refusals = list(refusals)

    def submit(self, submission_id: str, entrypoint: str, **_: Any) -> bool:
        """Start the orchestrator."""
        if self._refusals:
            raise self._refusals.pop(0)
        self.submitted.append(entrypoint)
        renew(self._store, "new", "session_2")
        return True

    def status(self, submission_id: str) -> DriverStatus:
        """Say how it went."""
        return DriverStatus.SUCCEEDED

    def logs(self, submission_id: str) -> str:
        """Say what it wrote."""
        return "no room"


def renew(store: MemoryStore, owner: str, session: str, version: str = "") -> None:
    """Write a lease as its holder does."""
    said = {"owner": owner, "session": session, "fence": 1, "version": version}
    store.put(keys.LEASE, json.dumps(said).encode())


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeRay, str | None], None]:
    """Puts a Ray of some session into the place of the real one."""

    def put(ray: FakeRay, session: str | None) -> None:
        monkeypatch.setattr(ensure, "RayJobs", lambda **_: ray)
        monkeypatch.setattr(ensure, "ray_session", lambda: session)
        monkeypatch.setattr(ensure, "_POLL_S", 0.001)
        monkeypatch.setattr(ensure, "RENEW_EVERY_S", 0.01)

    return put


Use = Callable[[FakeRay, str | None], None]


@pytest.mark.parametrize("session", ["session_2", None])
def test_one_that_lives_in_this_ray_is_left_alone(use: Use, session: str | None) -> None:
    """Each verb asks; asking must cost nothing."""
    store = MemoryStore()
    renew(store, "a", "session_2")
    ray = FakeRay(store)
    use(ray, session)
    assert not ensure_orchestrator(store, lambda line: None)
    assert ray.submitted == []


@pytest.mark.parametrize("restarted", [True, False])
def test_a_fresh_lease_of_a_ray_that_is_gone_is_no_orchestrator(use: Use, restarted: bool) -> None:
    """An `up` within 20 s of its head's death took the dead one for living and started none."""
    store = MemoryStore()
    renew(store, "dead", "session_1")
    ray = FakeRay(store)
    use(ray, "session_2")
    assert ensure_orchestrator(store, lambda line: None, restarted=restarted)
    assert len(ray.submitted) == 1


def test_the_orchestrator_of_another_cluster_is_one(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renews its lease while we look, so its jobs move."""
    store = MemoryStore()
    renew(store, "elsewhere", "session_1")
    ray = FakeRay(store)
    use(ray, "session_2")
    read = read_lease

    def read_while_it_renews(where: MemoryStore) -> Any:
        found = read(where)
        renew(store, "elsewhere", "session_1")
        return found

    monkeypatch.setattr(ensure, "read_lease", read_while_it_renews)
    monkeypatch.setattr(ensure, "RENEW_EVERY_S", 5.0)
    assert not ensure_orchestrator(store, lambda line: None)
    assert ray.submitted == []


def test_a_head_that_comes_up_is_asked_again(use: Use) -> None:
    """For some seconds it says that no agent is there, and each verb failed over that."""
    store = MemoryStore()
    refusals = [RayUnavailableError("No available agent to submit job")] * 3
    ray = FakeRay(store, *refusals)
    use(ray, None)
    assert ensure_orchestrator(store, lambda line: None)
    assert len(ray.submitted) == 1


def test_a_head_that_answers_is_waited_for_as_long_as_patience_lasts(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loaded machine it says for more than 20 s that no agent is there."""
    monkeypatch.setattr(ensure, "_SETTLE_S", 0.0)
    store, answered = MemoryStore(), RayUnavailableError("No available agent to submit job")
    answered.__cause__ = RuntimeError("status code 500")
    use(FakeRay(store, answered, answered), None)
    assert ensure_orchestrator(store, lambda line: None)
    silent = RayUnavailableError("Failed to connect")
    silent.__cause__ = ConnectionError()
    use(FakeRay(MemoryStore(), silent), None)
    with pytest.raises(RayUnavailableError, match="connect"):
        ensure_orchestrator(MemoryStore(), lambda line: None)


def test_a_refused_token_is_not_offered_again(use: Use) -> None:
    """It stays wrong, and the user waits for the answer."""
    store = MemoryStore()
    use(FakeRay(store, RayRefusedError("the token"), RayRefusedError("again")), None)
    with pytest.raises(RayRefusedError, match="the token"):
        ensure_orchestrator(store, lambda line: None)


def test_the_end_of_patience_is_an_end(use: Use) -> None:
    """`wait --timeout-s 1` took 281 s."""
    store = MemoryStore()
    use(FakeRay(store, *[RayUnavailableError("not yet")] * 1000), None)
    with pytest.raises(RayUnavailableError, match="not yet"):
        ensure_orchestrator(store, lambda line: None, within_s=0.05)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 120.0), ("7.5", 7.5), ("0", None), ("inf", None), ("soon", None)]
)
def test_patience_is_one_setting(
    text: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that is none is told, not passed over."""
    monkeypatch.setenv("DDPMCTL_PATIENCE_S", text)
    if seconds is not None:
        assert patience_s() == seconds
        return
    with pytest.raises(BadInputError, match="DDPMCTL_PATIENCE_S"):
        patience_s()


def test_an_orchestrator_of_another_version_is_told(use: Use) -> None:
    """A job that it cannot read waited without a word of why at `submit`."""
    store, told = MemoryStore(), list[str]()
    use(FakeRay(store), "session_2")
    renew(store, "a", "session_2", "0.0.1+abc")
    assert not ensure_orchestrator(store, told.append)
    renew(store, "a", "session_2", release())
    assert not ensure_orchestrator(store, told.append)
    (line,) = told
    assert line.startswith(f"the orchestrator runs version 0.0.1, this is {package_version()}: ")


@pytest.mark.parametrize("is_mine", [True, False])
def test_code_that_is_shipped_replaces_other_code(
    use: Use, monkeypatch: pytest.MonkeyPatch, is_mine: bool
) -> None:
    """Whoever mends his code and ships it saw what ran before, without a word."""
    monkeypatch.setenv("DDPMCTL_SHIP_CODE", "1")
    store = MemoryStore()
    renew(store, "a", "session_2", release() if is_mine else "0.1.0+yesterday")
    ray = FakeRay(store)
    use(ray, "session_2")
    assert ensure_orchestrator(store, lambda line: None) is not is_mine
    assert len(ray.submitted) == (not is_mine)


def test_shipped_code_runs_beside_a_package_of_another_version(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is that of the image; every `submit` waited for an orchestrator of its own."""
    monkeypatch.setenv("DDPMCTL_SHIP_CODE", "1")
    store = MemoryStore()
    renew(store, "a", "session_2", f"0.0.1+{code_of(release())}")
    ray = FakeRay(store)
    use(ray, "session_2")
    assert not ensure_orchestrator(store, lambda line: None)
    assert ray.submitted == []


def test_one_that_the_cluster_finds_to_run_this_code_stays(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash may differ, as by a file that Ray does not ship: patience ended in an error."""
    monkeypatch.setenv("DDPMCTL_SHIP_CODE", "1")
    store = MemoryStore()
    renew(store, "a", "session_2", "0.1.0+alike")
    ray = FakeRay(store)
    use(ray, "session_2")
    monkeypatch.setattr(ray, "submit", lambda *_, **__: True)
    read = read_lease

    def read_while_it_renews(where: MemoryStore) -> Any:
        renew(store, "a", "session_2", "0.1.0+alike")
        return read(where)

    monkeypatch.setattr(ensure, "read_lease", read_while_it_renews)
    assert not ensure_orchestrator(store, lambda line: None, within_s=60.0)
