"""The seam between a fleet and what its workers do with the shards that they are given.

The fleet and its workers know nothing of networks and of what lies in the store, so whoever has
shards to compute hands it a `WorkerSetup`, and a benchmark measures it with work that is none.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import Shard

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class ShardTask:
    """A shard to compute, and where an earlier worker left what it had of it ("" for nowhere)."""

    shard: Shard
    partial: str = ""


@dataclass(frozen=True, kw_only=True)
class ShardEvent:
    """What became of a shard that a worker was given.

    Attributes:
        index: Which.
        kind: "committed" (by this copy or an earlier one), "halved" (told to stop), "dropped".
        seconds: Worker-seconds that went into it in this attempt; the worker fills it in.
        is_own: Whether this copy is the one that counts.
        partial: Where it was left, if it was halved and there was something to keep.
    """

    index: int
    kind: Literal["committed", "halved", "dropped"]
    seconds: float = 0.0
    is_own: bool = False
    partial: str | None = None


class Watch:
    """What the drawing thread is asked to do, and what it shows to the others of its process."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._dropped: set[int] = set()
        self.shard: int | None = None
        self.steps_done = 0
        self.steps_total = 0
        self.steps_drawn = 0

    def stop(self) -> None:
        """Have the drawing stop after the present reverse step."""
        self._stop.set()

    @property
    def is_stopped(self) -> bool:
        """Whether the drawing is to stop."""
        return self._stop.is_set()

    def drop(self, index: int) -> None:
        """Have a shard given up: another worker has committed it."""
        self._dropped.add(index)

    def is_dropped(self, index: int) -> bool:
        """Whether a shard is given up."""
        return index in self._dropped

    def show(self, shard: int | None, steps_done: int = 0, steps_total: int = 0) -> None:
        """Show what is being drawn and how far it is, in reverse steps."""
        self.shard, self.steps_done, self.steps_total = shard, steps_done, steps_total

    def count(self, steps: int) -> None:
        """Count reverse steps of a microbatch that this process has done, over all its shards."""
        self.steps_drawn += steps


class ShardWorker(Protocol[ResultT]):
    """What a worker does with shards."""

    @property
    def remarks(self) -> Sequence[str]:
        """What differs here from what was decided, without being in its way."""

    def compute(self, task: ShardTask, watch: Watch) -> ResultT:
        """Compute a shard; called by one thread."""

    def keep(self, task: ShardTask, result: ResultT) -> ShardEvent:
        """Bring the result to the store; called by other threads, several at once."""


class PreparedWorker(Protocol):
    """What has been loaded and does not know yet what was decided."""

    @property
    def proposal(self) -> Decisions:
        """What this machine proposes to decide; nothing where all is decided."""

    def begin(self, decisions: Decisions) -> ShardWorker[Any]:
        """Return what computes shards as was decided."""


class WorkerSetup(Protocol):
    """Opens a worker's own part in its process; travels there pickled."""

    def open(self, worker: str, decisions: Decisions | None) -> PreparedWorker:
        """Load what the worker of this name works with.

        Args:
            worker: The name.
            decisions: What was decided for the job; None where this is the first attempt.
        """
