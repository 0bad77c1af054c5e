"""A store in memory as each process sees it: slow, silent, refusing, or deadly at one call."""

import bisect
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from orchestrator.errors import ConditionFailedError, StoreUnavailableError
from orchestrator.store.objects import ObjectInfo
from tests.support.failing import Death
from tests.support.fakes import MemoryStore

WRITES = ("put", "put_file", "delete")
Watcher = Callable[[str, bytes | None, bytes | None], None]


class WatchedStore(MemoryStore):
    """The store itself: it tells of each write, and finds a folder without a search.

    Args:
        watcher: Told the key, what stood there, and what stands there now; None is nothing.
    """

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self._watcher = watcher
        self._in_order: list[str] = []

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object under a condition."""
        before = self.objects.get(key)
        etag = super().put(key, body, if_absent=if_absent, if_match=if_match)
        if before is None:
            bisect.insort(self._in_order, key)
        self._watcher(key, before.body if before else None, body)
        return etag

    def delete(self, key: str) -> None:
        """Remove an object."""
        before = self.objects.get(key)
        if before is not None:
            del self._in_order[bisect.bisect_left(self._in_order, key)]
            super().delete(key)
            self._watcher(key, before.body, None)

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Yield what is below a prefix and above `after`."""
        first = bisect.bisect_left(self._in_order, prefix)
        last = bisect.bisect_left(self._in_order, f"{prefix}\uffff")
        for key in self._in_order[first:last]:
            if key > after:
                stored = self.objects[key]
                yield ObjectInfo(key, len(stored.body), stored.etag, stored.modified_at)


@dataclass
class Strike:
    """What happens to one call.

    Attributes:
        mode: "dies before", "dies after", "refused", "unanswered", "repeated" or "waits".
        calls: How many calls go well before.
        writes_only: Whether only writes count.
        seconds: How long a call waits.
    """

    mode: str
    calls: int = 0
    writes_only: bool = True
    seconds: int = 0


@dataclass
class Weather:
    """What everybody, or one group of processes, has to bear for a while.

    Attributes:
        down_until: By group ("" is everybody): no call is answered until then.
        refused_key: One object that is not to be had.
        refused_until: And until when.
    """

    down_until: dict[str, datetime] = field(default_factory=dict)
    refused_key: str = ""
    refused_until: datetime | None = None

    def refuses(self, group: str, key: str, now: datetime) -> bool:
        """Tell whether a call is not answered."""
        if any(now < self.down_until[one] for one in ("", group) if one in self.down_until):
            return True
        is_refused = self.refused_until is not None and now < self.refused_until
        return is_refused and key == self.refused_key


class View:
    """The store as one process sees it.

    Args:
        inner: The store.
        weather: What everybody bears.
        group: Of the process: "orchestrator", "tracking", "driver", "user".
        wait: Lets the others live on for some seconds while this process waits.

    Attributes:
        strike: What happens to one of the next calls.
        is_dead: Whether the process has died: nothing is done any more.
    """

    def __init__(
        self, inner: WatchedStore, weather: Weather, group: str, wait: Callable[[int], None]
    ) -> None:
        self.inner = inner
        self.group = group
        self.strike: Strike | None = None
        self.is_dead = False
        self._weather = weather
        self._wait = wait

    def now(self) -> datetime:
        """Return the time by the store's clock, which a process keeps by itself."""
        return self.inner.now()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return partial(self._call, name, value) if callable(value) else value

    def _call(self, name: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.is_dead:
            raise Death
        key = args[0] if args and isinstance(args[0], str) else ""
        if self._weather.refuses(self.group, key, self.inner.clock):
            raise StoreUnavailableError(f"{name} {key}: no answer")
        act = partial(self._do, method, *args, **options)
        strike = self._due(name)
        return act() if strike is None else self._struck(strike, act)

    def _due(self, name: str) -> Strike | None:
        strike = self.strike
        if strike is None or (strike.writes_only and name not in WRITES):
            return None
        strike.calls -= 1
        if strike.calls >= 0:
            return None
        self.strike = None
        return strike

    def _struck(self, strike: Strike, act: Callable[[], Any]) -> Any:
        match strike.mode:
            case "waits":
                self._wait(strike.seconds)
                if self.is_dead:
                    raise Death
            case "dies before":
                self.is_dead = True
                raise Death
            case "refused":
                raise StoreUnavailableError("this once")
        done = act()
        if strike.mode == "dies after":
            self.is_dead = True
            raise Death
        if strike.mode == "unanswered":
            raise StoreUnavailableError("the answer is lost, this once")
        if strike.mode == "repeated":  # it is done, or meets itself, as `S3Store` sees then
            with suppress(ConditionFailedError):
                return act()
        return done

    @staticmethod
    def _do(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        done = method(*args, **options)
        return iter(list(done)) if isinstance(done, Iterator) else done


def seconds(number: float) -> timedelta:
    """Return some whole seconds."""
    return timedelta(seconds=int(number))
