"""How far an attempt is, when it last got further, and what it may borrow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.jobs.heartbeat import WorkerReport
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import Lending


@dataclass(kw_only=True)
class Progress:
    """How far an attempt is; the driver changes it, the heartbeat shows it.

    Attributes:
        phase: What it does.
        done: Steps or images that are done.
        total: Units in all.
        unit: What is counted: "steps", "images".
        rate_per_s: Units a second, lately.
        committed: Units that no crash can lose.
        num_unplaced: Workers that it has room for and that are not there yet.
        workers: What each worker does.
        scores: What the work is worth so far: "loss", "bpd", "bpd_se".
        details: What else `status` shows; nothing is decided from it.
    """

    phase: Phase = Phase.STARTING
    done: float = 0
    total: int = 0
    unit: str = "steps"
    rate_per_s: float = 0.0
    committed: int = 0
    num_unplaced: int = 0
    workers: Sequence[WorkerReport] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Allowance:
    """What the orchestrator lets an attempt do, as the record said last."""

    lending: Lending = Lending.KEEP


class Movement:
    """When an attempt had got further last: a heart may beat where nothing moves."""

    def __init__(self) -> None:
        self._seen: object = None
        self._at: datetime | None = None

    def noted(self, progress: Progress, now: datetime) -> datetime:
        """Look at the progress and return when it was another one than before."""
        hands = [(worker.rank, worker.shard, worker.step) for worker in progress.workers]
        seen = (progress.phase, progress.done, progress.committed, hands)
        if self._at is None or seen != self._seen:
            self._seen, self._at = seen, now
        return self._at
