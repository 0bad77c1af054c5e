"""Which worker draws which images: the table that hands out the shards of a plan.

The table is a pure state machine: workers pull, the caller passes the time in, and nothing is
read or written. It holds one bit a shard and an entry for each shard that is being drawn, so a
set of any size fits. A shard is counted once, whoever else may still be drawing it.
"""

import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.jobs.units import Plan, Shard

_DURATIONS_KEPT = 127
_MOST_HOLDERS = 2


@dataclass(frozen=True, kw_only=True)
class ShardStatistics:
    """How far a set is.

    Attributes:
        num_shards: Shards of the plan.
        num_done: Shards that are committed.
        num_in_flight: Shards that at least one worker is drawing.
        num_duplicates: Shards that were given to a second worker so far.
        num_returned: Times that a shard came back from a worker undrawn.
        num_images: Images of the set.
        images_done: Images in committed shards.
        useful_s: Worker-seconds from hand-out to commit of the copies that counted.
        redone_s: Worker-seconds of copies that did not: lost workers and slower duplicates.
    """

    num_shards: int
    num_done: int
    num_in_flight: int
    num_duplicates: int
    num_returned: int
    num_images: int
    images_done: int
    useful_s: float
    redone_s: float


class ShardTable:
    """Hands out the shards of a plan to the workers that ask, each until it is done once.

    A worker may hold several shards (to draw one while the last one uploads). What comes back
    goes to the front. When none are left to hand out, an idle worker is given a shard that
    takes much longer than the median one.
    """

    def __init__(
        self, plan: Plan, *, straggler_factor: float = 2.0, straggler_floor_s: float = 0.0
    ) -> None:
        """Make a table with nothing done.

        Args:
            plan: The shards.
            straggler_factor: A shard is given to a second worker once it takes longer than this
                many times the median.
            straggler_floor_s: But not before that many seconds: short shards may have to queue.
        """
        self.plan = plan
        self._straggler_factor = straggler_factor
        self._straggler_floor_s = straggler_floor_s
        self._committed = bytearray(-(-len(plan) // 8))
        self._next_index = 0
        self._returned: deque[int] = deque()
        self._holders: dict[int, dict[str, float]] = {}  # shard -> worker -> handed out at
        self._held: dict[str, set[int]] = {}
        self._partials: dict[int, str] = {}
        self._durations_s: deque[float] = deque(maxlen=_DURATIONS_KEPT)
        self._num_done = 0
        self._images_done = 0
        self._num_duplicates = 0
        self._num_returned = 0
        self._useful_s = 0.0
        self._redone_s = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether every shard is committed."""
        return self._num_done == len(self.plan)

    def is_committed(self, index: int) -> bool:
        """Return whether a shard is committed."""
        return bool(self._committed[index >> 3] & (1 << (index & 7)))

    def missing(self) -> Iterator[Shard]:
        """Yield the shards that are not committed, in order."""
        return (shard for shard in self.plan if not self.is_committed(shard.index))

    def mark_committed(self, index: int) -> bool:
        """Note that a shard's commit was found in the store; say whether that was news.

        Whoever is still drawing it draws in vain: see `workers_on` before the call.
        """
        shard = self.plan[index]
        if self.is_committed(index):
            return False
        self._committed[index >> 3] |= 1 << (index & 7)
        self._num_done += 1
        self._images_done += shard.num_images
        self._partials.pop(index, None)
        for worker in self._holders.pop(index, {}):
            self._held[worker].discard(index)
        return True

    def next_for(self, worker: str, now: float) -> Shard | None:
        """Hand a shard to a worker, or None if there is nothing for it at the moment.

        Args:
            worker: Who asks.
            now: Seconds on any clock that does not go back.
        """
        index = self._next_pending()
        if index is None:
            index = self._straggler_for(worker, now)
            if index is None:
                return None
            self._num_duplicates += 1
        self._holders.setdefault(index, {})[worker] = now
        self._held.setdefault(worker, set()).add(index)
        return self.plan[index]

    def done(self, shard: Shard, worker: str, now: float) -> bool:
        """Note that a worker has committed a shard; say whether it was the first to do so.

        The others that draw it (`workers_on`, asked before) may be told to drop it.
        """
        holders = self._holders.get(shard.index, {})
        started_at = holders.get(worker)
        for other, other_started_at in holders.items():
            if other != worker:
                self._redone_s += now - other_started_at
        is_first = self.mark_committed(shard.index)
        if is_first and started_at is not None:
            self._durations_s.append(now - started_at)
            self._useful_s += now - started_at
        return is_first

    def give_back(
        self, shard: Shard, worker: str, now: float, *, partial: str | None = None
    ) -> None:
        """Take a shard back from a worker that was told to stop, to hand it out first.

        Args:
            shard: What it was drawing.
            worker: Who gives it back.
            now: Seconds, as in `next_for`.
            partial: Where the worker left what it had drawn (the key of its (x_t, t)), for the
                next one to go on from; None where it left nothing.
        """
        if partial is not None and not self.is_committed(shard.index):
            self._partials[shard.index] = partial
        self._take_back([shard.index], worker, now, is_redone=partial is None)

    def lost(self, worker: str, now: float) -> tuple[Shard, ...]:
        """Take back what a dead worker held, to the front; return the shards it held."""
        indices = sorted(self._held.get(worker, ()))
        self._take_back(indices, worker, now, is_redone=True)
        self._held.pop(worker, None)
        return tuple(self.plan[index] for index in indices)

    def keep_partial(self, index: int, partial: str) -> None:
        """Note where an earlier attempt left a shard's unfinished images."""
        if not self.is_committed(index):
            self._partials[index] = partial

    def partial(self, index: int) -> str | None:
        """Return what `give_back` or `keep_partial` noted last for a shard that is not done."""
        return self._partials.get(index)

    def workers_on(self, index: int) -> tuple[str, ...]:
        """Return who is drawing a shard."""
        return tuple(self._holders.get(index, ()))

    def statistics(self) -> ShardStatistics:
        """Return how far the set is."""
        return ShardStatistics(
            num_shards=len(self.plan),
            num_done=self._num_done,
            num_in_flight=len(self._holders),
            num_duplicates=self._num_duplicates,
            num_returned=self._num_returned,
            num_images=self.plan.num_samples,
            images_done=self._images_done,
            useful_s=self._useful_s,
            redone_s=self._redone_s,
        )

    def _next_pending(self) -> int | None:
        while self._returned:
            index = self._returned.popleft()
            if not self.is_committed(index):
                return index
        while self._next_index < len(self.plan):
            index = self._next_index
            self._next_index += 1
            if not self.is_committed(index):
                return index
        return None

    def _straggler_for(self, worker: str, now: float) -> int | None:
        """Return the shard that has been drawn for longest, if that is far over the median."""
        if not self._durations_s:
            return None
        limit_s = self._straggler_factor * statistics.median(self._durations_s)
        limit_s = max(limit_s, self._straggler_floor_s)
        slowest = None
        oldest = now - limit_s
        for index, holders in self._holders.items():
            started_at = min(holders.values())
            if len(holders) < _MOST_HOLDERS and worker not in holders and started_at < oldest:
                slowest, oldest = index, started_at
        return slowest

    def _take_back(self, indices: list[int], worker: str, now: float, *, is_redone: bool) -> None:
        for index in reversed(indices):
            holders = self._holders.get(index, {})
            started_at = holders.pop(worker, None)
            if started_at is None:
                continue
            self._held[worker].discard(index)
            self._num_returned += 1
            if is_redone:
                self._redone_s += now - started_at
            else:
                self._useful_s += now - started_at
            if not holders:
                del self._holders[index]
                self._returned.appendleft(index)
