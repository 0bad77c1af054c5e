"""The manifest that makes a sample set whole, and the reader that proves it shard by shard.

The reader follows the commits in order while the fleet draws: it rereads each shard, checks it and
feeds its pixels to the set's hash. So the proof needs no second pass, and memory for one shard.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import numpy as np

from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.artifacts.samples.labels import LabelRule
from orchestrator.artifacts.samples.shards import (
    Pixels,
    SampleShards,
    SetOrigin,
    ShardCommit,
    hash_labels,
    origin_of,
)
from orchestrator.errors import ConditionFailedError, ShardDamagedError
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import ShardPlan
from orchestrator.store.json_objects import read_json
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_READ_WITHIN_S = 3600.0
_ENTRY_FIELDS = (
    *("index", "start", "stop", "attempt"),
    *("data_key", "size_bytes", "sha256", "pixel_sha256"),
)


class SetHash:
    """SHA-256 over the decoded uint8 NHWC pixels of a set, in index order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, pixels: Pixels) -> None:
        """Take the next images: (N, H, W, C) uint8."""
        self._digest.update(np.ascontiguousarray(pixels).data)

    @property
    def hexdigest(self) -> str:
        """The hash of what was added so far."""
        return self._digest.hexdigest()


class SetReader:
    """Rereads the shards of a set in order as they are committed.

    Attributes:
        set_hash: Hash of the shards read so far.
        entries: What the manifest will say of each of them.
        first_images: (n, H, W, C) uint8, the first images of the set, up to `num_first`.
        rule: Which image has which label; None for a set without.
    """

    def __init__(
        self,
        shards: SampleShards,
        plan: ShardPlan,
        origin: SetOrigin,
        num_first: int,
        rule: LabelRule | None = None,
    ) -> None:
        self.rule = rule
        self.set_hash = SetHash()
        self.entries: list[dict[str, Any]] = []
        self.first_images: list[Pixels] = []
        self.image_shape: tuple[int, int, int] | None = None
        self._shards = shards
        self._plan = plan
        self._origin = origin
        self._num_first = num_first
        self._etags: dict[str, str] = {}

    def check_unchanged(self) -> None:
        """See that all data still are what was read: the manifest vouches for them.

        Raises:
            ShardDamagedError: Some were overwritten or removed since.
        """
        present = self._shards.present_versions(self._etags)
        changed = [key for key, etag in self._etags.items() if present.get(key) != etag]
        if changed:
            raise ShardDamagedError(f"{changed[0]} was overwritten while the set was proven")

    def follow(
        self, is_committed: Callable[[int], bool], ended: threading.Event, every_s: float = 0.2
    ) -> bool:
        """Read shard after shard, waiting for each to be committed.

        Args:
            is_committed: Whether a shard is committed.
            ended: Set when nothing more will be committed.
            every_s: Pause between two looks.

        Returns:
            Whether all shards were read.

        Raises:
            ShardDamagedError: A shard is not what was committed.
            StoreUnavailableError: The store did not come back in time.
        """
        for shard in self._plan:
            while not is_committed(shard.index):
                if ended.wait(every_s):
                    break
            if not is_committed(shard.index):
                return False
            outlast_outage(lambda index=shard.index: self.read(index), Backoff(), ended)  # type: ignore[misc]
        return True

    def read(self, index: int) -> None:
        """Read and check one shard, the next in order. Raises: ShardDamagedError."""
        commit = self._shards.find(index)
        if commit is None:
            raise ShardDamagedError(f"shard {index} has no commit any more")
        check_fits(commit, self._plan, self._origin, self.rule)
        pixels, self._etags[commit.data_key] = self._shards.read_version(commit)
        self.set_hash.add(pixels)
        self.image_shape = commit.image_shape
        self.entries.append(_entry(commit))
        missing = self._num_first - sum(len(part) for part in self.first_images)
        if missing > 0:
            self.first_images.append(pixels[:missing])

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of a set that was read to its end."""
        return {
            "format_version": FORMAT_VERSION,
            "num_samples": self._plan.num_samples,
            "shard_size": self._plan.shard_size,
            "image_shape": list(self.image_shape or ()),
            "origin": asdict(self._origin),
            "set_sha256": self.set_hash.hexdigest,
            **({"labels": self.rule.to_json()} if self.rule else {}),
            "shards": self.entries,
        }


class BackgroundReader:
    """The thread that rereads what is committed while the fleet draws.

    Args:
        shards: The set's shards.
        plan: What the set is to be.
        is_committed: Whether a shard is committed by now.
        num_first: Images to keep from the set's beginning.
    """

    def __init__(
        self,
        shards: SampleShards,
        plan: ShardPlan,
        is_committed: Callable[[int], bool],
        *,
        num_first: int,
    ) -> None:
        self._shards = shards
        self._plan = plan
        self._is_committed = is_committed
        self._num_first = num_first
        self._ended = threading.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="proof")
        self._reading: Future[bool] | None = None
        self._reader: SetReader | None = None

    def start(self, decisions: Decisions) -> Decisions:
        """Begin, now that it is decided what the set comes from; return the decisions."""
        origin, rule = origin_of(decisions), SET_DECISIONS.of(decisions.values).labels
        reader = SetReader(self._shards, self._plan, origin, self._num_first, rule)
        self._reading = self._executor.submit(reader.follow, self._is_committed, self._ended)
        self._reader = reader
        return decisions

    def raise_failure(self) -> None:
        """Raise what the thread met, if it did."""
        if self._reading is not None and self._reading.done():
            self._reading.result()

    def result(self) -> SetReader:
        """Wait until everything is read. Raises: ShardDamagedError."""
        if self._reader is None or self._reading is None:
            raise ShardDamagedError("shards are committed, but nothing was decided for their set")
        self._reading.result(timeout=_READ_WITHIN_S)
        return self._reader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._executor.shutdown(wait=True)


def check_fits(
    commit: ShardCommit, plan: ShardPlan, origin: SetOrigin, rule: LabelRule | None = None
) -> None:
    """Make sure that a commit belongs to a set, its labels too. Raises: ShardDamagedError."""
    shard = plan[commit.index]
    if (commit.start, commit.stop) != (shard.start, shard.stop):
        raise ShardDamagedError(
            f"shard {shard.index} was committed for images {commit.start}..{commit.stop - 1}, "
            f"not {shard.start}..{shard.stop - 1}"
        )
    if commit.origin != origin:
        raise ShardDamagedError(
            f"shard {shard.index} was drawn from another checkpoint, seed or decision than its set"
        )
    labels = hash_labels(rule.of(shard.start, shard.stop).tolist()) if rule else ""
    if commit.labels_sha256 != labels:
        raise ShardDamagedError(f"shard {shard.index} has other labels than its set gives it")


def _entry(commit: ShardCommit) -> dict[str, Any]:
    names = (
        "index",
        "start",
        "stop",
        "data_key",
        "size_bytes",
        "sha256",
        "pixel_sha256",
        "attempt",
    )
    values = asdict(commit)
    return {name: values[name] for name in names}


def put_manifest(store: ObjectStore, paths: JobPaths, manifest: dict[str, Any]) -> dict[str, Any]:
    """Declare a set whole, once; return the manifest that stands.

    Raises:
        ShardDamagedError: One of another set stands.
    """
    try:
        store.put(paths.manifest, json.dumps(manifest).encode(), if_absent=True)
    except ConditionFailedError:
        standing = read_manifest(store, paths)
        if standing is not None and standing["set_sha256"] == manifest["set_sha256"]:
            return standing
        raise ShardDamagedError(
            f"{paths.manifest} is the manifest of another set; run `ddpmctl samples repair`"
        ) from None
    return manifest


def read_manifest(store: ObjectStore, paths: JobPaths) -> dict[str, Any] | None:
    """Return a set's manifest, or None where it is not whole (yet). Raises: ShardDamagedError."""
    try:
        found = read_json(store, paths.manifest)
        if found is None:
            return None
        manifest = found[0]
        if manifest["format_version"] > FORMAT_VERSION:
            raise ShardDamagedError(f"{paths.manifest} has an unknown format")
        return {**manifest, "set_sha256": str(manifest["set_sha256"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ShardDamagedError(f"{paths.manifest} cannot be read as a manifest") from error
