"""Stand-ins that behave as the real parts do, for tests that need no server."""

import copy
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from orchestrator.errors import (
    ConditionFailedError,
    ObjectNotFoundError,
    StoreUnavailableError,
    TrackingError,
)
from orchestrator.store.objects import ObjectInfo, OpenUpload, StoredObject
from orchestrator.tracking.lines import DatasetLine, ImageLine, ModelLine
from orchestrator.tracking.server import (
    METRICS_PER_CALL,
    LineRefusedError,
    MetricValue,
    RunMissingError,
)


class MemoryStore:
    """An `ObjectStore` in a dictionary, with a clock that tests move by hand."""

    uri = "memory://"
    address = "memory://"

    def __init__(self) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[OpenUpload, datetime] = {}
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._versions = itertools.count()

    def copy(self) -> Self:
        """Return another store that holds the same now."""
        other = copy.copy(self)
        other.objects, other.uploads = dict(self.objects), dict(self.uploads)
        return other

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

    def get_range(self, key: str, first_byte: int, size_bytes: int, *, etag: str = "") -> bytes:
        """Return a part of an object."""
        stored = self.get(key)
        if etag and stored.etag != etag:
            raise ConditionFailedError(key)
        return stored.body[first_byte : first_byte + size_bytes]

    def get_file(self, key: str, path: Path) -> None:
        """Copy an object to a file."""
        path.write_bytes(self.get(key).body)

    def put_file(self, key: str, path: Path) -> None:
        """Copy a file to an object."""
        self.put(key, path.read_bytes())

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.objects.pop(key, None)

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Yield what is below a prefix and above `after`."""
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                stored = self.objects.get(key)
                if stored is not None:  # another thread has just deleted it
                    yield ObjectInfo(key, len(stored.body), stored.etag, stored.modified_at)

    def list_folders(self, prefix: str) -> list[str]:
        """Return the folders directly below a prefix."""
        head = prefix[: prefix.rfind("/") + 1]
        rests = [key[len(head) :] for key in self.objects if key.startswith(prefix)]
        return sorted({rest.split("/")[0] for rest in rests if "/" in rest})

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        return key in self.objects

    def open_uploads(self, older_than: timedelta) -> list[OpenUpload]:
        """Return what a test put there."""
        begun_before = self.clock - older_than
        return [upload for upload, begun_at in self.uploads.items() if begun_at < begun_before]

    def abort_upload(self, upload: OpenUpload) -> None:
        """Forget an upload."""
        self.uploads.pop(upload, None)

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


class MemoryTracking:
    """A `TrackingServer` that keeps what MLflow keeps, and fails at a chosen call.

    Args:
        fail_at: The call that fails, from 1; 0 for none.
        after: The call is done and only its answer is lost.
    """

    def __init__(self, fail_at: int = 0, *, after: bool = False) -> None:
        self.fail_at = fail_at
        self.after = after
        self.num_calls = 0
        self.jobs: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.metrics: dict[str, set[MetricValue]] = {}
        self.params: dict[str, dict[str, str]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.statuses: dict[str, tuple[str, int | None]] = {}
        self.images: dict[tuple[str, str], bytes] = {}
        self.datasets: dict[str, set[str]] = {}
        self.models: list[tuple[str, str, int]] = []
        self.aliases: dict[tuple[str, str], tuple[str, int]] = {}

    @contextmanager
    def _call(self) -> Iterator[None]:
        self.num_calls += 1
        fails = self.num_calls == self.fail_at
        if fails and not self.after:
            raise TrackingError(f"call {self.num_calls} was lost")
        yield
        if fails:
            raise TrackingError(f"the answer to call {self.num_calls} was lost")

    def experiment(self, name: str) -> str:
        """Return the id of an experiment."""
        with self._call():
            return f"experiment-{name}"

    def find_run(self, experiment_id: str, job_id: str) -> str | None:
        """Return the id of a job's run."""
        with self._call():
            return next((run_id for run_id, job in self.jobs.items() if job == job_id), None)

    def create_run(self, experiment_id: str, job_id: str, start_ms: int) -> str:
        """Make a run."""
        with self._call():
            run_id = f"run-{len(self.jobs) + 1}"
            self.jobs[run_id] = job_id
            self.metrics[run_id] = set()
            self.params[run_id] = {}
            self.tags[run_id] = {}
            self.datasets[run_id] = set()
            self.statuses[run_id] = ("RUNNING", None)
        return run_id

    def delete_run(self, run_id: str) -> None:
        """Remove a run."""
        with self._call():
            self.deleted.add(run_id)

    def lose_everything(self) -> None:
        """Forget all runs, as a server whose database is gone."""
        self.jobs.clear()
        self.metrics.clear()

    def is_active(self, run_id: str) -> bool:
        """Tell whether a run takes values."""
        with self._call():
            if run_id not in self.jobs:
                raise RunMissingError(run_id)
        return run_id not in self.deleted

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Set a run's status."""
        with self._call():
            self.statuses[run_id] = (status, end_ms)

    def log_metrics(self, run_id: str, values: Sequence[MetricValue]) -> None:
        """Add values; equal ones stay one."""
        with self._call():
            if len(values) > METRICS_PER_CALL or any(value.name == "refused" for value in values):
                raise LineRefusedError("not these")
            self.metrics[run_id] |= set(values)

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Add params, which never change."""
        with self._call():
            known = self.params[run_id]
            if any(known.get(name, text) != text for name, text in params.items()):
                raise LineRefusedError("params do not change")
            known.update(params)

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with self._call():
            self.tags[run_id].update(tags)

    def log_image(self, run_id: str, line: ImageLine, png: bytes) -> None:
        """Keep an image."""
        with self._call():
            self.images[run_id, line.path] = png

    def log_dataset(self, run_id: str, line: DatasetLine) -> None:
        """Note a data set."""
        with self._call():
            self.datasets[run_id].add(line.digest)

    def register_model(self, run_id: str, job_id: str, line: ModelLine) -> None:
        """Register a model once."""
        with self._call():
            entry = (line.name, job_id, line.step)
            if entry not in self.models:
                self.models.append(entry)

    def set_alias(self, job_id: str, line: ModelLine, alias: str) -> None:
        """Have an alias point at a registered version."""
        with self._call():
            self.aliases[line.name, alias] = (job_id, line.step)
