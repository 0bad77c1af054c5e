"""The job's side of the tracking: lines are buffered and written to the store by a thread."""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Self

from orchestrator.counts import counted
from orchestrator.errors import StoreError, StoreUnavailableError
from orchestrator.store.keys import AttemptPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.watched_thread import WatchedThread
from orchestrator.tracking.lines import (
    DatasetLine,
    ImageLine,
    MetricsLine,
    ModelLine,
    ParamsLine,
    TagsLine,
    TrackingLine,
    encode_line,
    params_of,
    segments,
)

logger = logging.getLogger(__name__)

_LINES_PER_SEGMENT = 2000
_LONGEST_PAUSE_S = 15.0
_IMAGE_PATH = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*\.png")


@dataclass(frozen=True)
class _Entry:
    line: bytes
    image_key: str = ""
    image: bytes = b""


class MetricWriter:
    """Collects what one attempt has to say and writes it to the store every `every_s` seconds.

    No call waits for the store but `flush` and `close`; an outage delays lines and loses none.

    Args:
        store: Where to.
        paths: The attempt's keys.
        every_s: Seconds between segments.
        first_pause_s: Seconds after which a store that failed is tried again, doubled each time.
    """

    def __init__(
        self,
        store: ObjectStore,
        paths: AttemptPaths,
        *,
        every_s: float = 1.5,
        first_pause_s: float = 1.0,
    ) -> None:
        self._store = store
        self._paths = paths
        self._segments = segments(store, paths)
        self._every_s = every_s
        self._first_pause_s = first_pause_s
        self._changed = threading.Condition()
        self._entries: deque[_Entry] = deque()
        self._number = 0
        self._num_logged = 0
        self._num_stored = 0
        self._hurry = False
        self._ended = False
        self._failure: StoreError | None = None
        self._last_step = 0
        self._thread = WatchedThread(self._run, "metric-writer", self._wake)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float], at: datetime | None = None) -> None:
        """Log values of a step.

        Args:
            step: The step; a later attempt that does it again is not heard.
            metrics: Values by name; NaN and infinities are values too.
            at: When they were measured; now by default.
        """
        self._last_step = step
        values = {name: float(value) for name, value in metrics.items()}
        self._append(MetricsLine(at_ms=_ms(at), step=step, values=values))

    def log_system(self, metrics: Mapping[str, float], at: datetime | None = None) -> None:
        """Log what the machine does, at the step that was logged last."""
        values = {name: float(value) for name, value in metrics.items()}
        line = MetricsLine(at_ms=_ms(at), step=self._last_step, values=values, by_time=True)
        self._append(line)

    def log_over_time(
        self, metrics: Mapping[str, float], since: datetime, at: datetime | None = None
    ) -> None:
        """Log values of work that has no step of its own, at the second that they belong to.

        Args:
            metrics: Values by name.
            since: When the job was submitted. Their step is the whole seconds since then; two in
                one second stand one after the other, so a step is never sent twice.
            at: When they were measured; now by default.
        """
        seconds = (_ms(at) - _ms(since)) // 1000
        self._last_step = step = max(seconds, self._last_step + 1)
        values = {name: float(value) for name, value in metrics.items()}
        self._append(MetricsLine(at_ms=_ms(at), step=step, values=values, by_time=True))

    def log_image(self, path: str, png: bytes, step: int, at: datetime | None = None) -> None:
        """Log an image.

        Args:
            path: Its path among the run's artifacts, such as "samples/step-000500.png".
            png: The file.
            step: The step it shows.
            at: When it was made; now by default.
        """
        if _IMAGE_PATH.fullmatch(path) is None:
            raise ValueError(f"an image's path must look like samples/step-000500.png, not {path}")
        key = f"{self._paths.folder}images/{path}"
        self._append(ImageLine(at_ms=_ms(at), step=step, path=path, key=key), key, png)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log a job's settings, which may be nested; the first value of a name stands."""
        self._append(ParamsLine(values=params_of(params)))

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Log marks of the run; the last value of a name stands."""
        self._append(TagsLine(values={name: str(value) for name, value in tags.items()}))

    def log_dataset(
        self,
        name: str,
        *,
        digest: str,
        source: str,
        context: str = "training",
        profile: Mapping[str, object] | None = None,
    ) -> None:
        """Log a data set that the job reads; see `DatasetLine`."""
        self._append(
            DatasetLine(
                name=name, digest=digest, source=source, context=context, profile=profile or {}
            )
        )

    def log_model(
        self,
        name: str,
        *,
        source: str,
        step: int,
        sha256: str,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Have a model registered, once for each step; see `ModelLine`."""
        self._append(ModelLine(name=name, source=source, step=step, sha256=sha256, tags=tags or {}))

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything logged so far is in the store.

        Before a checkpoint is committed, this makes sure that no step is lost whose work is not.

        Raises:
            StoreUnavailableError: It was not within `timeout_s`; it will be tried further.
            Exception: What ended the writing for good.
        """
        with self._changed:
            target = self._num_logged
            self._hurry = True
            self._changed.notify_all()
            is_over = lambda: self._num_stored >= target or self._thread.has_failed  # noqa: E731
            if self._changed.wait_for(is_over, timeout_s):
                self._thread.raise_failure()
                return
            missing = target - self._num_stored
        raise StoreUnavailableError(
            f"{counted(missing, 'line')} of metrics are not in the store after {timeout_s:.0f} s"
            + (f": {self._failure}" if self._failure else "")
        ) from self._failure

    def close(self, timeout_s: float = 60.0) -> None:
        """Write what is left and end the thread.

        Raises:
            StoreUnavailableError: Not everything was stored within `timeout_s`.
        """
        try:
            self.flush(timeout_s)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._thread.join(timeout=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except StoreUnavailableError as late:
            if kind is None:
                raise
            logger.warning("%s", late)  # the error on its way says more

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _append(self, line: TrackingLine, image_key: str = "", image: bytes = b"") -> None:
        self._thread.raise_failure()
        entry = _Entry(encode_line(line), image_key, image)
        with self._changed:
            self._entries.append(entry)
            self._num_logged += 1

    def _run(self) -> None:
        pause_s = self._first_pause_s
        while (batch := self._next_batch()) is not None:
            try:
                self._write(batch)
            except StoreError as error:
                self._note_failure(error, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            pause_s = self._first_pause_s
            self._note_success(len(batch))

    def _next_batch(self) -> list[_Entry] | None:
        """Wait until it is time; None at the end. A batch that failed comes again unchanged."""
        with self._changed:
            if self._failure is None:
                self._changed.wait_for(lambda: self._hurry or self._ended, self._every_s)
                self._batch_size = min(len(self._entries), _LINES_PER_SEGMENT)
            return None if self._ended else list(islice(self._entries, self._batch_size))

    def _write(self, batch: list[_Entry]) -> None:
        if not batch:
            return
        for entry in batch:
            if entry.image_key:
                self._store.put(entry.image_key, entry.image)
        body = b"".join(entry.line + b"\n" for entry in batch)
        # The number stays what it is while a put is repeated whose answer was lost.
        self._number = self._number or self._segments.newest() + 1
        self._number = self._segments.put(self._number, body) + 1

    def _note_failure(self, error: StoreError, pause_s: float) -> None:
        logger.warning("metrics are late, trying again in %.0f s: %s", pause_s, error)
        with self._changed:
            self._failure = error
            self._changed.wait_for(lambda: self._ended, pause_s)

    def _note_success(self, size: int) -> None:
        with self._changed:
            for _ in range(size):
                self._entries.popleft()
            self._failure = None
            self._num_stored += size
            self._hurry = self._hurry and bool(self._entries)
            self._changed.notify_all()


def _ms(at: datetime | None) -> int:
    return time.time_ns() // 1_000_000 if at is None else int(at.astimezone(UTC).timestamp() * 1000)
