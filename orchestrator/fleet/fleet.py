"""The fleet of one attempt: starts workers, keeps them in work, and goes on with what is left.

One call is out to each worker at any time. Its answer brings what became of shards, and the next
call takes new ones along; an answer that says the worker is dead puts its shards back at once.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.counts import counted
from orchestrator.errors import WorkersLostError
from orchestrator.fleet.actor import Hello, Orders, WorkerReport
from orchestrator.fleet.table import ShardTable
from orchestrator.fleet.work import ShardEvent, ShardTask
from orchestrator.fleet.workers import PoolWorker, Workers
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import Shard

logger = logging.getLogger(__name__)

LOOKAHEAD_S = 1.0
_MAX_LOOKAHEAD = 64
_PLENTY = 2
_SPARE_DEATHS = 3
_MOST_COUNTED_WORKERS = 32


@dataclass(kw_only=True)
class FleetTotals:
    """What the fleet has done in this attempt.

    Attributes:
        images: Images in shards that it committed.
        reverse_steps: Passes of the network over a microbatch, those that came to nothing too.
        useful_s: Worker-seconds of copies that counted, or that a later worker goes on from.
        redone_s: Worker-seconds of slower copies and of workers that died.
        deaths: Workers that died.
        first_draw_at: When the first worker got its first shard; None before.
        last_commit_at: When the newest commit was heard of; None before.
    """

    images: int = 0
    reverse_steps: int = 0
    useful_s: float = 0.0
    redone_s: float = 0.0
    deaths: int = 0
    first_draw_at: float | None = None
    last_commit_at: float | None = None


def _is_committed_nowhere(shard: Shard) -> bool:
    del shard
    return False


def _ignore(message: str) -> None:
    del message


@dataclass(frozen=True, kw_only=True)
class FleetHooks:
    """What the fleet asks and reports outside.

    Attributes:
        decide: Fixes, once for the job, what the first worker proposes.
        is_committed: Whether a shard that a dead worker held is in the store all the same.
        tell: Takes a line for the job's history.
        tick: Called several times a second, for progress; its errors end the fleet.
    """

    decide: Callable[[Decisions], Decisions]
    is_committed: Callable[[Shard], bool] = _is_committed_nowhere
    tell: Callable[[str], None] = _ignore
    tick: Callable[["Fleet"], None] = field(default=lambda _: None)


class Fleet:
    """Computes what a table holds with the workers of a pool.

    Args:
        table: The shards.
        pool: Where workers come from.
        hooks: What is outside.
        decisions: What was decided for the job; None if nothing yet.
    """

    def __init__(
        self,
        table: ShardTable,
        pool: Workers,
        hooks: FleetHooks,
        decisions: Decisions | None = None,
    ) -> None:
        self.table = table
        self.totals = FleetTotals()
        self._pool = pool
        self._hooks = hooks
        self._decisions = decisions
        self._deaths_in_a_row = 0
        self._shard_s = 0.0
        self._remarks: set[str] = set()

    @property
    def workers(self) -> list[PoolWorker]:
        """The workers that are alive or being started."""
        return self._pool.workers

    @property
    def num_unplaced(self) -> int:
        """How many workers that were given a place have been asked for and have no room."""
        return self._pool.num_unplaced

    def run(self, stop: threading.Event, grace_s: Callable[[], float]) -> None:
        """Draw until everything is committed, or until told to stop.

        Args:
            stop: Set when the attempt is to end.
            grace_s: Asked once then: the seconds that the workers have to save what they hold.

        Raises:
            WorkersLostError: Nothing gets done any more.
            OrchestratorError: A worker's error that another worker would meet as well.
        """
        try:
            while not self.table.is_complete and not stop.is_set():
                self._check_deaths()
                self._pool.start_missing(self._decisions)
                self._pool.shrink()
                self._listen(stopping=False)
                self._hooks.tick(self)
            self._wind_down(10.0 if self.table.is_complete else grace_s())
        finally:
            self._pool.end_all()

    def _wind_down(self, patience_s: float) -> None:
        """Let the workers save what they hold, or give up what others have committed."""
        self._pool.end_unready()
        end = time.monotonic() + patience_s
        while self._pool.workers and time.monotonic() < end:
            self._listen(stopping=True)
            self._hooks.tick(self)
        for worker in self._pool.workers:
            logger.warning("%s did not end in time", worker.name)

    def _listen(self, *, stopping: bool) -> None:
        for worker, answer in self._pool.answers():
            if answer is None:
                self._note_loss(worker)
            elif isinstance(answer, Hello):
                self._welcome(worker, answer)
                self._send(worker, stopping)
            else:
                self._note(worker, answer)
                if answer.has_ended:
                    self._pool.end(worker)
                else:
                    self._send(worker, stopping)

    def _welcome(self, worker: PoolWorker, hello: Hello) -> None:
        if self._decisions is None:
            self._decisions = self._hooks.decide(hello.proposal)
        logger.info("%s is ready on node %s", worker.name, hello.node_id)
        worker.decisions = self._decisions

    def _send(self, worker: PoolWorker, stopping: bool) -> None:
        now, stopping = time.monotonic(), stopping or worker.is_leaving
        may_draw = worker.is_ready and not stopping
        tasks = tuple(self._tasks_for(worker, now)) if may_draw else ()
        if tasks and self.totals.first_draw_at is None:
            self.totals.first_draw_at = now
        drops, worker.drops = tuple(worker.drops), []
        decisions, worker.decisions = worker.decisions, None
        self._pool.send(
            worker, Orders(decisions=decisions, tasks=tasks, drops=drops, stop=stopping)
        )

    def _tasks_for(self, worker: PoolWorker, now: float) -> Iterator[ShardTask]:
        for _ in range(self._depth() - worker.num_undrawn):
            shard = self.table.next_for(worker.name, now)
            if shard is None:
                return
            yield ShardTask(shard, self.table.partial(shard.index) or "")

    def _depth(self) -> int:
        """Return how many undrawn shards a worker holds, so that none ever waits for the driver.

        One and the next while there are plenty; of short ones, about a second's work. At the end
        of the set one, so that no shard queues behind a slow one.
        """
        statistics = self.table.statistics()
        left = statistics.num_shards - statistics.num_done - statistics.num_in_flight
        plenty = left > _PLENTY * len(self._pool.workers)
        short = 0
        if self.totals.images:
            short = int(min(LOOKAHEAD_S / max(self._shard_s, 1e-6), _MAX_LOOKAHEAD))
        return 1 + max(short, int(plenty))

    def _note(self, worker: PoolWorker, report: WorkerReport) -> None:
        earlier = worker.report.steps_drawn if worker.report else 0
        self.totals.reverse_steps += report.steps_drawn - earlier
        worker.report = report
        for event in report.events:
            self._note_event(worker, event)
        for remark in report.remarks:
            if remark not in self._remarks:
                self._remarks.add(remark)
                self._hooks.tell(f"images may differ in the last bits: {remark}")

    def _note_event(self, worker: PoolWorker, event: ShardEvent) -> None:
        shard, now = self.table.plan[event.index], time.monotonic()
        worker.accounted_s += event.seconds
        counts = event.kind == "halved"
        if event.kind == "committed":
            counts = event.is_own
            self._note_commit(worker, shard, event, now)
        elif event.kind == "halved":
            self.table.give_back(shard, worker.name, now, partial=event.partial)
        if counts:
            self.totals.useful_s += event.seconds
        else:
            self.totals.redone_s += event.seconds

    def _note_commit(self, worker: PoolWorker, shard: Shard, event: ShardEvent, now: float) -> None:
        others = [name for name in self.table.workers_on(shard.index) if name != worker.name]
        for other in self._pool.workers:
            if other.name in others:
                other.drops.append(shard.index)
        if self.table.done(shard, worker.name, now):
            self.totals.images += shard.num_images
        self.totals.last_commit_at = now
        self._shard_s += 0.2 * (event.seconds - self._shard_s) if self._shard_s else event.seconds
        self._deaths_in_a_row = 0

    def _note_loss(self, worker: PoolWorker) -> None:
        busy_s = worker.report.busy_s if worker.report else 0.0
        self.totals.redone_s += max(0.0, busy_s - worker.accounted_s)
        self.totals.deaths += 1
        if worker.is_ready or not any(other.is_ready for other in self.workers):
            self._deaths_in_a_row += 1  # else its node is broken, and others draw
        held = self.table.lost(worker.name, time.monotonic())
        for shard in held:
            if not self.table.is_committed(shard.index) and self._hooks.is_committed(shard):
                self.table.mark_committed(shard.index)
        numbers = ", ".join(str(shard.index) for shard in held) or "nothing"
        self._hooks.tell(f"{worker.name} is lost; it held {numbers}")

    def _check_deaths(self) -> None:
        allowed = _SPARE_DEATHS + min(self._pool.max_workers, _MOST_COUNTED_WORKERS)
        if self._deaths_in_a_row > allowed:
            raise WorkersLostError(
                f"{counted(self._deaths_in_a_row, 'worker')} died and none committed a shard in "
                f"between; the last one: {self._pool.last_loss}"
            )
        if self._pool.unplaced_s > self._pool.place_within_s:
            raise WorkersLostError(
                f"no worker could be placed and made ready within {self._pool.place_within_s:.0f} s"
            )
