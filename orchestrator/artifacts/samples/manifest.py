"""The manifest that makes a sample set whole, and the reader that proves it shard by shard.

The reader follows the commits in order while the fleet draws: it rereads each shard, checks it and
feeds its pixels to the set's hash. So the proof needs no second pass, and memory for one shard.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from orchestrator.artifacts.samples.commits import ManifestEntry, SetOrigin, origin_of
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.artifacts.samples.labels import LabelRule
from orchestrator.artifacts.samples.proof import SetProof
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.errors import ConditionFailedError, ShardDamagedError, StoredFormError
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import ShardPlan
from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_READ_WITHIN_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class SetManifest:
    """What declares a set whole.

    Attributes:
        job_id: The job that drew it; "" where nobody wrote that.
        num_samples: Images.
        shard_size: Images of a shard.
        image_shape: (H, W, C); () where nobody wrote that.
        origin: What fixes its bits.
        set_sha256: Hash of all images, as `SetHash` makes it.
        labels: Which image has which label; None for a set without.
        shards: One entry each, in order.
        decisions: What was decided once for the job, for readers outside.
    """

    job_id: str = ""
    num_samples: int = 0
    shard_size: int = 0
    image_shape: tuple[int, ...] = ()
    origin: SetOrigin | None = None
    set_sha256: str
    labels: LabelRule | None = None
    shards: tuple[ManifestEntry, ...] = ()
    decisions: Mapping[str, object] = field(default_factory=dict)


MANIFEST = Codec(SetManifest, "manifest", version=FORMAT_VERSION)


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
        self.entries: list[ManifestEntry] = []
        self.first_images: list[Pixels] = []
        self.image_shape: tuple[int, ...] = ()
        self._proof = SetProof(shards, plan, origin, rule)
        self._num_first = num_first
        self._etags: dict[str, str] = {}

    def check_unchanged(self) -> None:
        """See that all data still are what was read: the manifest vouches for them.

        Raises:
            ShardDamagedError: Some were overwritten or removed since.
        """
        present = self._proof.shards.present_versions(self._etags)
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
        for shard in self._proof.plan:
            while not is_committed(shard.index):
                if ended.wait(every_s):
                    break
            if not is_committed(shard.index):
                return False
            outlast_outage(lambda index=shard.index: self.read(index), Backoff(), ended)  # type: ignore[misc]
        return True

    def read(self, index: int) -> None:
        """Read and check one shard, the next in order. Raises: ShardDamagedError."""
        proven = self._proof.prove(index)
        self._etags[proven.commit.data_key] = proven.etag
        self.set_hash.add(proven.pixels)
        self.image_shape = proven.commit.image_shape
        self.entries.append(ManifestEntry.of(proven.commit))
        missing = self._num_first - sum(len(part) for part in self.first_images)
        if missing > 0:
            self.first_images.append(proven.pixels[:missing])

    def manifest(self, job_id: str, decisions: Decisions) -> SetManifest:
        """Return the manifest of a job's set that was read to its end."""
        return SetManifest(
            job_id=job_id,
            num_samples=self._proof.plan.num_samples,
            shard_size=self._proof.plan.shard_size,
            image_shape=self.image_shape,
            origin=self._proof.origin,
            set_sha256=self.set_hash.hexdigest,
            labels=self.rule,
            shards=tuple(self.entries),
            decisions=decisions.values,
        )


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

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._executor.shutdown(wait=True)


def put_manifest(store: ObjectStore, paths: JobPaths, manifest: SetManifest) -> SetManifest:
    """Declare a set whole, once; return the manifest that stands.

    Raises:
        ShardDamagedError: One of another set stands.
    """
    try:
        store.put(paths.manifest, MANIFEST.encode(manifest), if_absent=True)
    except ConditionFailedError:
        standing = read_manifest(store, paths)
        if standing is not None and standing.set_sha256 == manifest.set_sha256:
            return standing
        raise ShardDamagedError(
            f"{paths.manifest} is the manifest of another set; run `ddpmctl samples repair`"
        ) from None
    return manifest


def read_manifest(store: ObjectStore, paths: JobPaths) -> SetManifest | None:
    """Return a set's manifest, or None where it is not whole (yet). Raises: ShardDamagedError."""
    try:
        return MANIFEST.value(store, paths.manifest)
    except StoredFormError as error:
        raise ShardDamagedError(str(error)) from error
