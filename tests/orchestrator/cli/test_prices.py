"""`prices` keeps a table, by which `status` says what a job cost."""

import pytest

from orchestrator.cli.jobs import status_command
from orchestrator.cli.prices import prices_command
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError, StoredFormError
from orchestrator.jobs.prices import read_prices, set_price
from orchestrator.jobs.queue import read_quotas, set_quota
from orchestrator.store import keys
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs
from tests.support.world import World, train_job


def test_a_jobs_price_is_told_by_the_type_that_it_ran_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is asked for each month; it must be that of the node that was used."""
    world = World()
    world.cluster.told_of = {"n1": {"accelerator": "H100", "gpus": 2, "free_gpus": 2}}
    verbs = Verbs(monkeypatch, world.store)
    job_id = submit_job(world.store, train_job(workers=2, asks={"gpus_per_worker": 1})).job_id
    world.step()
    world.store.advance(1800)
    status = verbs(status_command, [job_id, "-o", "json"]).value
    assert status["cost"] is None  # nobody set a price
    assert "price" not in verbs(status_command, [job_id]).out
    verbs(prices_command, ["set", "A100", "2", "--currency", "EUR"])
    assert (
        "price     unknown: no price for H100 (1 GPU-hours)" in verbs(status_command, [job_id]).out
    )
    said = verbs(prices_command, ["set", "H100", "2.5", "-o", "json"]).value
    assert said == {"currency": "EUR", "per_hour": {"A100": 2.0, "H100": 2.5}}
    status = verbs(status_command, [job_id, "-o", "json"]).value
    assert status["cost"]["amount"] == pytest.approx(2.5)
    assert status["cost"]["currency"] == "EUR"
    assert status["cost"]["per_1000_images"] is None  # it draws none
    assert "price     2.50 EUR\n" in verbs(status_command, [job_id]).out


def test_prices_are_in_one_currency(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of euros and dollars is no amount."""
    store = MemoryStore()
    verbs = Verbs(monkeypatch, store)
    verbs(prices_command, ["set", "H100", "2.5", "--currency", "EUR"])
    with pytest.raises(BadInputError, match="the other prices are in EUR"):
        verbs(prices_command, ["set", "A100", "2", "--currency", "USD"])
    said = verbs(prices_command, ["set", "H100", "2.7", "--currency", "USD"])
    assert said.out == "H100: 2.7 USD an hour\n"
    assert verbs(prices_command, ["remove", "H100"]).out == "no GPU has a price\n"


@pytest.mark.parametrize("asked", [("unknown", 1.0), ("a b", 1.0), ("H100", -1.0), ("H100", 1e9)])
def test_what_is_no_price_is_refused(asked: tuple[str, float]) -> None:
    """A price of what nobody knows would be an invented number."""
    with pytest.raises(BadInputError):
        set_price(MemoryStore(), *asked)


def test_prices_and_quotas_keep_out_of_each_others_way() -> None:
    """They lie in one object."""
    store = MemoryStore()
    set_quota(store, "team", 4)
    set_price(store, "H100", 2.0)
    set_quota(store, "night", 2)
    assert read_quotas(store) == {"team": 4, "night": 2}
    assert set_price(store, "A100", 1.0).per_hour == {"A100": 1.0, "H100": 2.0}


@pytest.mark.parametrize(
    "prices", [b'{"per_hour": {"H100": "dear"}}', b'{"per_hour": 3}', b'{"currency": 3}', b"[]"]
)
def test_a_table_that_somebody_wrote_otherwise_is_told_in_one_line(prices: bytes) -> None:
    """`status` of every job looks at it, and ended with a traceback."""
    store = MemoryStore()
    store.put(keys.CONFIG, b'{"prices": ' + prices + b"}")
    with pytest.raises(StoredFormError, match=r"config\.json"):
        read_prices(store)
    with pytest.raises(StoredFormError, match=r"config\.json"):
        set_price(store, "H100", 1.0)
