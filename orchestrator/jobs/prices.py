"""The price table of a store, which users set, and what a job costs by it."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.settings import Section, change_section, read_section
from orchestrator.lifecycle.cost import UNKNOWN, Cost, Prices, cost_of
from orchestrator.lifecycle.state import JobRecord
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore

MAX_PRICE = 1_000_000
_ACCELERATOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_CURRENCY = re.compile(r"[A-Z]{3}")


_PRICES = Codec(Prices, "price table")
_SECTION = Section("prices", lambda values: _PRICES.of(values, keys.CONFIG), _PRICES.as_json)


def read_prices(store: ObjectStore) -> Prices:
    """Return the price table; without prices where nobody set any.

    Raises:
        StoredFormError: As of `read_section`.
    """
    return read_section(store, _SECTION)


def set_price(
    store: ObjectStore, accelerator: str, per_hour: float | None, currency: str | None = None
) -> Prices:
    """Set or, with None, remove the price of a type of GPU; return the table.

    Args:
        store: Whose table it is.
        accelerator: The type as Ray calls it: "H100".
        per_hour: Of one GPU for an hour.
        currency: Three letters; None for that of the table.

    Raises:
        BadInputError: One of them cannot be used, or the other prices are in another currency.
    """
    if _ACCELERATOR.fullmatch(accelerator) is None or accelerator == UNKNOWN:
        raise BadInputError(
            f"accelerator {accelerator!r} is not usable: take a type as `ddpmctl nodes` shows it"
        )
    if per_hour is not None and not 0 <= per_hour <= MAX_PRICE:
        raise BadInputError(f"a price must be from 0 to {MAX_PRICE:,}, not {per_hour:g}")
    if currency is not None and _CURRENCY.fullmatch(currency) is None:
        raise BadInputError(f"currency {currency!r} must be three capital letters: EUR")

    def change(prices: Prices) -> Prices:
        others = {name: price for name, price in prices.per_hour.items() if name != accelerator}
        if currency not in (None, prices.currency) and others:
            raise BadInputError(
                f"the other prices are in {prices.currency}: remove them first, or give all in one"
            )
        table = others if per_hour is None else {**others, accelerator: per_hour}
        return Prices(currency=currency or prices.currency, per_hour=dict(sorted(table.items())))

    return change_section(store, _SECTION, change)


def cost_at(
    store: ObjectStore, records: Sequence[JobRecord], now: datetime, num_images: float = 0
) -> Cost | None:
    """Return what jobs cost by the store's table; None where it has no price, or they no GPU.

    Args:
        store: Where the table lies.
        records: The jobs.
        now: By the store's clock.
        num_images: Images that they have committed.
    """
    prices = read_prices(store)
    return cost_of(records, prices, now, num_images) if prices.per_hour else None


def cost_of_jobs(store: ObjectStore, job_ids: Sequence[str], num_images: float = 0) -> Cost | None:
    """Return what jobs cost together; None likewise, and where all of them are gone."""
    prices = read_prices(store)
    if not prices.per_hour:
        return None
    records = RecordStore(store)
    found = []
    for job_id in job_ids:
        with suppress(JobNotFoundError):
            found.append(records.read(job_id).record)
    return cost_of(found, prices, store.now(), num_images)
