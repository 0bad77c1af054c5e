"""Chunks of a set that a node's cache cannot hold as a whole, brought to hand as they are needed.

A chunk lies in the cache as the object that the store has, in a folder of its set, beside a file
for its lease. Who wants or reads it holds a shared lock on that file, which ends with the process
at the latest; who makes room passes over what is locked. All processes of a node share the chunks;
the one that holds the lock on a chunk's fetching brings it for all.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.chunks import Chunk, chunk_body
from orchestrator.artifacts.datasets.manifest import Manifest
from orchestrator.artifacts.datasets.node_cache import (
    CHUNK_SUFFIX,
    CHUNKS_SUFFIX,
    LIMIT_VARIABLE,
    cache_limit,
    cache_usable,
    lease_of,
    make_room,
)
from orchestrator.errors import DatasetError
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage

_THREADS = 8
_SHARE = 0.4  # of the cache for one job, so that two jobs of a node do not wait for each other
_WINDOWS_HELD = 2  # the one that is read, and the next


def decide_window(manifest: Manifest, cache: Path) -> int:
    """Return how many chunks of a set a training on this machine should draw from at a time.

    Raises:
        DatasetError: Not even two chunks fit the cache, or the set is one array.
    """
    window = int(_SHARE * cache_limit(cache) / (_WINDOWS_HELD * _largest(manifest)))
    window = min(window, len(manifest.chunks))
    check_window(manifest, max(1, window), cache)
    return max(1, window)


def check_window(manifest: Manifest, window: int, cache: Path) -> None:
    """Raise DatasetError where this machine cannot hold the windows that a job has."""
    name = manifest.ref.sha256[:12]
    if not manifest.chunks[0].sha256:
        raise DatasetError(
            f"data set {name} is one array, of the first format, and has no blocks to draw from: "
            f"raise {LIMIT_VARIABLE} on the node, or export it and submit that"
        )
    needed, limit = _WINDOWS_HELD * window * _largest(manifest), cache_limit(cache)
    if needed > limit:
        raise DatasetError(
            f"dataset.shuffle: blocks needs {needed >> 20} MiB for two windows of {window} chunks "
            f"of data set {name}, but {cache} may hold {limit >> 20}: raise {LIMIT_VARIABLE} on "
            "the node"
        )


def _largest(manifest: Manifest) -> int:
    return max(chunk.size_bytes for chunk in manifest.chunks)


@dataclass(frozen=True)
class _Held:
    """A chunk at hand: its images, and the lease that keeps it there."""

    images: NDArray[Any]
    lease: IO[str]

    def let_go(self) -> None:
        self.lease.close()


class CachedChunks:
    """The images of a set in chunks, as `ddpm.training.data.BlockImages`.

    Args:
        store: Where the set is kept.
        manifest: Of the set.
        cache: Folder of the local cache.

    Attributes:
        shape: (N, H, W, C).
        dtype: Of a value.
        bounds: (K + 1,) int64, the first image of each chunk, and N.
    """

    def __init__(self, store: ObjectStore, manifest: Manifest, cache: Path) -> None:
        ref = manifest.ref
        self.shape = (ref.num_images, ref.height, ref.width, ref.channels)
        self.dtype: np.dtype[Any] = np.dtype(ref.dtype)
        sizes = [chunk.num_images for chunk in manifest.chunks]
        self.bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._store = store
        self._chunks = manifest.chunks
        self._cache = cache
        self._folder = cache / f"{ref.sha256}{CHUNKS_SUFFIX}"
        self._pool = ThreadPoolExecutor(_THREADS, "chunks")
        self._expected: dict[int, Future[_Held]] = {}

    def expect(self, blocks: tuple[int, ...]) -> None:
        """Begin to fetch chunks that are needed soon, in order; let all others go."""
        wanted = set(blocks)
        for block in [block for block in self._expected if block not in wanted]:
            self._let_go(self._expected.pop(block))
        for block in blocks:
            if block not in self._expected:
                self._expected[block] = self._pool.submit(self._hold, block)

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return (B, H, W, C) images by number; those of chunks not expected take their time."""
        images = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        blocks = np.searchsorted(self.bounds, numbers, side="right") - 1
        for block in np.unique(blocks).tolist():
            places = np.flatnonzero(blocks == block)
            with self._at_hand(block) as chunk:
                images[places] = chunk[numbers[places] - self.bounds[block]]
        return images

    def close(self) -> None:
        """Let all chunks go."""
        self.expect(())
        self._pool.shutdown()

    @contextmanager
    def _at_hand(self, block: int) -> Iterator[NDArray[Any]]:
        expected = self._expected.get(block)
        if expected is not None:
            yield expected.result().images
            return
        held = self._hold(block)
        try:
            yield held.images
        finally:
            held.let_go()

    @staticmethod
    def _let_go(future: Future[_Held]) -> None:
        if not future.cancel():
            future.add_done_callback(_let_go_of_result)

    def _hold(self, block: int) -> _Held:
        """Return a chunk with a lease on it, fetched if it is not here. Raises: DatasetError."""
        chunk, path = self._chunks[block], self._folder / f"{block:06d}{CHUNK_SUFFIX}"
        with cache_usable(self._cache):
            self._folder.mkdir(parents=True, exist_ok=True)
            lease = lease_of(path).open("a")
            try:
                self._fetched(chunk, path, lease)
                return _Held(np.load(path, mmap_mode="r", allow_pickle=False), lease)
            except BaseException:
                lease.close()
                raise

    def _fetched(self, chunk: Chunk, path: Path, lease: IO[str]) -> None:
        """Bring a chunk here, with a shared lock on its lease.

        Who fetches must not need the lease for itself alone: others that want the chunk hold it,
        and keep it for as long as they read.
        """
        fcntl.flock(lease, fcntl.LOCK_SH)  # nobody removes the chunk from now on
        if not is_fetched(path, chunk):
            with FileLock(path.with_suffix(".lock")):
                if not is_fetched(path, chunk):
                    self._fetch(chunk, path)
        os.utime(path)

    def _fetch(self, chunk: Chunk, path: Path) -> None:
        """Take room for a chunk, then fill it; it gets its name when it is proved and whole."""
        path.unlink(missing_ok=True)
        part = path.with_suffix(f".part{CHUNK_SUFFIX}")
        with FileLock(self._cache / "room.lock"):
            if not make_room(self._cache, chunk.size_bytes, self._folder.name):
                raise DatasetError(
                    f"{self._cache} is full of what is in use: raise {LIMIT_VARIABLE} on the node, "
                    "or let fewer trainings run there"
                )
            with part.open("wb") as file:
                file.truncate(chunk.size_bytes)  # counted from now on
        body = outlast_outage(lambda: chunk_body(self._store, chunk), Backoff(), threading.Event())
        with part.open("r+b") as file:
            file.write(body)
        part.replace(path)


def _let_go_of_result(future: Future[_Held]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().let_go()


def is_fetched(path: Path, chunk: Chunk) -> bool:
    """Tell whether a chunk lies in the cache as a whole."""
    # It gets its name when it has been proved; this finds one that a power cut shortened.
    return path.is_file() and path.stat().st_size == chunk.size_bytes
