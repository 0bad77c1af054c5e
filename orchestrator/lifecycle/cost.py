"""What a job's GPUs cost, by a table of prices. Pure: it guesses nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.lifecycle.state import JobRecord

UNKNOWN = "unknown"
"""The type of GPUs that Ray or an older version did not tell; no price can be set for it."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What an hour of a GPU costs.

    Attributes:
        currency: Of all prices: "USD".
        per_hour: Type of GPU, as `nodes` shows it, to the price of one for an hour.
    """

    currency: str = "USD"
    per_hour: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a job's GPUs cost so far, of all attempts: also those before a retry.

    Attributes:
        currency: Of the amounts.
        amount: The whole of it; None where the price of a part is not known.
        per_1000_images: Of a job whose work is counted in images: of those that are committed.
        gpu_hours: What its attempts were given, by type of GPU.
        unpriced: Types that have no price.
    """

    currency: str
    amount: float | None
    per_1000_images: float | None = None
    gpu_hours: Mapping[str, float] = field(default_factory=dict)
    unpriced: tuple[str, ...] = ()


def gpu_hours_by_type(record: JobRecord, now: datetime) -> dict[str, float]:
    """Return the GPU-hours of all attempts by type of GPU.

    Args:
        record: The record.
        now: By the store's clock; an attempt that has not ended counts up to then.
    """
    hours: dict[str, float] = {}
    for attempt in record.attempts:
        passed_h = ((attempt.ended_at or now) - attempt.started_at).total_seconds() / 3600
        untold = attempt.gpus - sum(attempt.gpus_by_type.values())
        for name, gpus in (*attempt.gpus_by_type.items(), (UNKNOWN, untold)):
            if gpus > 0:
                hours[name] = hours.get(name, 0.0) + gpus * passed_h
    return hours


def cost_of(
    records: Iterable[JobRecord], prices: Prices, now: datetime, num_images: float = 0
) -> Cost | None:
    """Return what jobs cost together; None if they held no GPU, whose hours alone have a price.

    Args:
        records: One job's, or those of a group.
        prices: The table.
        now: By the store's clock.
        num_images: Images that are committed; 0 of jobs that count no images.
    """
    hours: dict[str, float] = {}
    for record in records:
        for name, spent in gpu_hours_by_type(record, now).items():
            hours[name] = hours.get(name, 0.0) + spent
    if not hours:
        return None
    unpriced = tuple(sorted(name for name in hours if name not in prices.per_hour))
    amount = None
    if not unpriced:
        amount = sum(prices.per_hour[name] * spent for name, spent in hours.items())
    return Cost(
        currency=prices.currency,
        amount=amount,
        per_1000_images=amount * 1000 / num_images if amount is not None and num_images else None,
        gpu_hours={name: round(spent, 4) for name, spent in sorted(hours.items())},
        unpriced=unpriced,
    )
