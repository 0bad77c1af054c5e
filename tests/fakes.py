"""Stand-ins that behave as the real parts do, for tests that need no server."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.errors import (
    ConditionFailedError,
    ObjectNotFoundError,
    StoreUnavailableError,
)
from orchestrator.storage import ObjectInfo, StoredObject


class MemoryStore:
    """An `ObjectStore` in a dictionary, with a clock that tests move by hand."""

    uri = "memory://"

    def __init__(self) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._versions = itertools.count()

    def advance(self, seconds: float) -> None:
        """Move the store's clock."""
        self.clock += timedelta(seconds=seconds)

    def get(self, key: str) -> StoredObject:
        """Return an object."""
        if key not in self.objects:
            raise ObjectNotFoundError(key)
        stored = self.objects[key]
        return StoredObject(key, stored.body, stored.etag, stored.modified_at, self.clock)

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object under a condition."""
        present = self.objects.get(key)
        if if_absent and present is not None:
            raise ConditionFailedError(key)
        if if_match is not None and (present is None or present.etag != if_match):
            raise ConditionFailedError(key)
        etag = hashlib.sha256(body + str(next(self._versions)).encode()).hexdigest()
        self.objects[key] = StoredObject(key, body, etag, self.clock, self.clock)
        return etag

    def get_file(self, key: str, path: Path) -> None:
        """Copy an object to a file."""
        path.write_bytes(self.get(key).body)

    def put_file(self, key: str, path: Path) -> None:
        """Copy a file to an object."""
        self.put(key, path.read_bytes())

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.objects.pop(key, None)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what is below a prefix."""
        for key in sorted(self.objects):
            if key.startswith(prefix):
                stored = self.objects[key]
                yield ObjectInfo(key, len(stored.body), stored.etag, stored.modified_at)

    def list_folders(self, prefix: str) -> list[str]:
        """Return the folders directly below a prefix."""
        head = prefix[: prefix.rfind("/") + 1]
        rests = [key[len(head) :] for key in self.objects if key.startswith(prefix)]
        return sorted({rest.split("/")[0] for rest in rests if "/" in rest})

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        return key in self.objects

    def now(self) -> datetime:
        """Return the fake time."""
        return self.clock


class FaultyStore:
    """A store that fails at one call, or from that call on, as a network or a crash makes it.

    Args:
        inner: The store behind it.
        fail_at: The call that fails, from 1; 0 for none.
        after: The call is done and only its answer is lost.
        dead: All later calls fail too, undone.
    """

    def __init__(
        self, inner: MemoryStore, fail_at: int, *, after: bool = False, dead: bool = False
    ) -> None:
        self.inner = inner
        self.fail_at = fail_at
        self.after = after
        self.dead = dead
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return functools.partial(self._call, value) if callable(value) else value

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.num_calls += 1
        if self.num_calls == self.fail_at and self.after:
            method(*args, **options)
        is_dead = self.dead and 0 < self.fail_at < self.num_calls
        if self.num_calls == self.fail_at or is_dead:
            raise StoreUnavailableError(f"call {self.num_calls} was lost")
        return method(*args, **options)
