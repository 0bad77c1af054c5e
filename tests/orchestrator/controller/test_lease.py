"""One orchestrator acts, and one that slept past its term knows it."""

import json

import pytest

from orchestrator.controller.lease import Lease
from orchestrator.errors import LeaseLostError
from orchestrator.jobs.lease_view import read_lease
from orchestrator.store import keys
from tests.support.fakes import MemoryStore


def test_only_one_of_two_holds_the_lease() -> None:
    """Two that act would start every job twice."""
    store = MemoryStore()
    first, second = Lease(store, "1"), Lease(store, "2")
    assert first.acquire()
    assert not second.acquire()
    first.guard()


def test_a_lease_past_its_term_is_taken_with_a_higher_fence() -> None:
    """The fence tells the records of the two apart."""
    store = MemoryStore()
    first, second = Lease(store, "1"), Lease(store, "2")
    assert first.acquire()
    store.advance(21)
    assert second.acquire()
    assert second.fence == first.fence + 1


def test_a_holder_whose_lease_was_taken_can_not_renew(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must learn of it at the latest when it writes."""
    store = MemoryStore()
    first, second = Lease(store, "1"), Lease(store, "2")
    assert first.acquire()
    store.advance(21)
    assert second.acquire()
    monkeypatch.setattr("orchestrator.controller.lease.RENEW_EVERY_S", 0.0)
    with pytest.raises(LeaseLostError):
        first.renew()
    with pytest.raises(LeaseLostError):
        first.guard()


def test_a_holder_that_slept_past_its_term_acts_no_more() -> None:
    """It can not know what happened meanwhile, whatever the store says."""
    lease = Lease(MemoryStore(), "1", term_s=0.0)
    assert lease.acquire()
    with pytest.raises(LeaseLostError):
        lease.guard()


def test_the_lease_of_a_dead_process_of_this_host_is_free_at_once() -> None:
    """Killing the orchestrator costs seconds, not a whole term."""
    store = MemoryStore()
    first = Lease(store, "1")
    assert first.acquire()
    stored = store.get(keys.LEASE)
    dead = stored.body.replace(b'"born_s": ', b'"born_s": 1')
    store.put(keys.LEASE, dead)
    assert Lease(store, "2").acquire()


def test_a_fresh_lease_of_another_machine_of_this_name_is_left_alone() -> None:
    """Two containers of one host name: taken, two orchestrators would act for a while."""
    store = MemoryStore()
    assert Lease(store, "1").acquire()
    body = store.get(keys.LEASE).body
    holder = json.loads(body)
    store.put(keys.LEASE, json.dumps({**holder, "boot_id": "another"}).encode())
    assert not Lease(store, "2").acquire()
    store.advance(21)
    assert Lease(store, "2").acquire()


def test_the_lease_names_its_node() -> None:
    """Whoever has to end the holder asks that node, not one of the same host name."""
    store = MemoryStore()
    assert Lease(store, "1", node_id="n7").acquire()
    assert json.loads(store.get(keys.LEASE).body)["node_id"] == "n7"


def test_a_released_lease_is_free_at_once() -> None:
    """A clean end hands over without a wait."""
    store = MemoryStore()
    first = Lease(store, "1")
    assert first.acquire()
    first.release()
    view = read_lease(store)
    assert view is not None
    assert not view.is_fresh
    assert Lease(store, "2").acquire()
