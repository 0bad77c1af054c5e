"""The workers of a fleet as its driver sees them, and what it asks of wherever they come from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.fleet.actor import Hello, Orders, WorkerReport
from orchestrator.jobs.decisions import Decisions


@dataclass(kw_only=True, eq=False)
class PoolWorker:
    """One worker as the driver sees it.

    Attributes:
        name: Its name in commits and in the table.
        rank: Its number within the attempt.
        slot: The place that it fills.
        asked_at: When it was asked for.
        started: Answers once its process is there, which it is only where it has its room.
        hello: What it said when it was ready; None before.
        report: What it said last; None before.
        decisions: What it has not received yet.
        drops: Shards to drop that it has not heard of yet.
        accounted_s: Of its busy seconds, those whose shards came to something.
        is_extra: It has no place of its own: it came where there was room.
        leave_by: When it must have saved and ended, since others need its room; None if it stays.
    """

    name: str
    rank: int
    slot: int
    actor: Any
    asked_at: float
    started: Any = None
    hello: Hello | None = None
    report: WorkerReport | None = None
    decisions: Decisions | None = None
    drops: list[int] = field(default_factory=list)
    accounted_s: float = 0.0
    is_extra: bool = False
    leave_by: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it has built its network and can draw."""
        return self.report is not None and self.report.is_ready

    @property
    def is_leaving(self) -> bool:
        """Whether it is to save and end."""
        return self.leave_by is not None

    @property
    def num_undrawn(self) -> int:
        """Shards that it holds and has not drawn."""
        return self.report.num_undrawn if self.report else 0


class Workers(Protocol):
    """Starts workers, carries calls to them, and says which are dead."""

    @property
    def workers(self) -> list[PoolWorker]:
        """Those that are alive or being started."""

    @property
    def last_loss(self) -> str:
        """Why the last one died."""

    @property
    def max_workers(self) -> int:
        """The most that there may be."""

    @property
    def place_within_s(self) -> float:
        """Without any worker for that long, the fleet gives up."""

    @property
    def unplaced_s(self) -> float:
        """Seconds since a worker was ready; 0 while one is."""

    @property
    def num_unplaced(self) -> int:
        """How many workers that were given a place have been asked for and have no room."""

    def start_missing(self, decisions: Decisions | None) -> None:
        """Ask for the workers that are missing and may come now."""

    def shrink(self) -> None:
        """Have the surplus workers leave if others need their room."""

    def answers(self) -> Iterator[tuple[PoolWorker, Hello | WorkerReport | None]]:
        """Yield what workers answered; None for one that is dead."""

    def send(self, worker: PoolWorker, orders: Orders) -> None:
        """Call a worker; its answer comes out of `answers`."""

    def end(self, worker: PoolWorker) -> None:
        """End a worker that has nothing left to do."""

    def end_unready(self) -> None:
        """End the workers that cannot compute yet: they hold nothing."""

    def end_all(self) -> None:
        """End all workers."""
