"""What a running attempt, or a group, last said of itself, and what an attempt came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.store.codec import Codec


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What one worker of an attempt does; None for what it has no word of.

    Attributes:
        rank: Its rank.
        node_id: The Ray node that it runs on.
        pid: Its process there.
        phase: What it does.
        shard: The shard in hand.
        step: Reverse steps of that shard that are done.
        num_steps: Reverse steps of that shard.
        done: Units that are done.
        total: Units in all.
        committed: Units that no crash can lose.
        rate_per_s: Units a second, lately.
        data_wait_share: Of that time, the part that went by waiting for images, in [0, 1].
        scores: What the work is worth so far: "loss", "bpd", "bpd_se".
    """

    rank: int = 0
    node_id: str = ""
    pid: int = 0
    phase: Phase | None = None
    shard: int | None = None
    step: int | None = None
    num_steps: int | None = None
    done: int | float | None = None
    total: int | None = None
    committed: int | None = None
    rate_per_s: float | None = None
    data_wait_share: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What an attempt said last.

    Attributes:
        at: When, by the store's clock.
        moved_at: When it had got further last; None of an older version.
        phase: What it does.
        done: Units that are done.
        total: Units in all; 0 if it has not said so yet.
        unit: What is counted: "steps", "images".
        rate_per_s: Units a second, lately.
        committed: Units that no crash can lose.
        num_unplaced: Workers that it has room for and that are not there yet.
        workers: Its workers.
        scores: What the work is worth so far: "loss", "bpd", "bpd_se".
        details: What else people are shown; nothing is decided from it.
    """

    at: datetime | None = None
    moved_at: datetime | None = None
    phase: Phase = Phase.STARTING
    done: int | float = 0
    total: int = 0
    unit: str = "steps"
    rate_per_s: float = 0.0
    committed: int = 0
    num_unplaced: int = 0
    workers: tuple[WorkerReport, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


def _from_before_versions(value: dict[str, object]) -> dict[str, object]:
    """Once, what a fleet lacks stood among what people are shown."""
    details = value.get("details")
    num_unplaced = details.get("num_unplaced", 0) if isinstance(details, dict) else 0
    return {"num_unplaced": num_unplaced, **value}


HEARTBEAT = Codec(Heartbeat, "heartbeat", upgrade=_from_before_versions)
OUTCOME = Codec(Outcome, "outcome")
