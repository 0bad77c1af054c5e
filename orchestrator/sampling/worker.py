"""What a sample worker does with a shard: draw it, and bring it to the store."""

import secrets
import threading
from collections.abc import Sequence

from orchestrator.artifacts.samples.commits import SetOrigin, ShardCommit
from orchestrator.artifacts.samples.encoding import (
    encode_array,
    encode_shard,
    hash_bytes,
    hash_labels,
    hash_pixels,
    suffix_of,
)
from orchestrator.artifacts.samples.labels import LabelRule
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.sampling.drawing import DrawnShard, ShardSampler, UnfinishedShard
from orchestrator.sampling.partials import load_partial, save_partial
from orchestrator.sampling.setup import StoreSetup
from orchestrator.sampling.smoke import smoke_drawing
from orchestrator.specs.sample import SMOKE_STEPS
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage

Result = DrawnShard | UnfinishedShard | None


class SampleWorker:
    """The worker that draws with a trained network and commits to the store.

    Args:
        store: Where shards go.
        setup: What is asked.
        worker: Its name in commits.
        sampler: Draws shards.
        origin: What fixes the bits of the set.
        rule: Which image has which label; None for a set without.
        remarks: What differs here and may change the last bits: another kind of hardware, ...
    """

    def __init__(
        self,
        store: ObjectStore,
        setup: StoreSetup,
        worker: str,
        *,
        sampler: ShardSampler,
        origin: SetOrigin,
        rule: LabelRule | None,
        remarks: Sequence[str],
    ) -> None:
        self.remarks = remarks
        self._store = store
        self._setup = setup
        self._worker = worker
        self._sampler = sampler
        self._origin = origin
        self._rule = rule
        self._paths = JobPaths(setup.job_id).attempt(setup.attempt)
        self._shards = SampleShards(store, JobPaths(setup.job_id))
        self._abandon = threading.Event()

    def try_out(self) -> None:
        """Draw an image in a few steps, store it and read it back."""
        smoke_drawing(self._sampler.hasty(SMOKE_STEPS), self._put_data, self._shards)

    def compute(self, task: ShardTask, watch: Watch) -> Result:
        """Draw a shard, from where an earlier worker left it if it did."""
        unfinished = None
        if task.partial:
            unfinished = load_partial(self._store, task.partial, task.shard, self._origin)
        return self._sampler.draw(unfinished or UnfinishedShard(shard=task.shard), watch)

    def keep(self, task: ShardTask, result: Result) -> ShardEvent:
        """Commit a drawn shard, or keep a half-drawn one."""
        if result is None:
            return ShardEvent(index=task.shard.index, kind="dropped")
        return outlast_outage(lambda: self._kept(task, result), Backoff(), self._abandon)

    def _kept(self, task: ShardTask, result: DrawnShard | UnfinishedShard) -> ShardEvent:
        index = task.shard.index
        if isinstance(result, UnfinishedShard):
            partial = save_partial(self._store, self._paths, result, self._origin)
            if partial and task.partial:
                self._store.delete(task.partial)
            return ShardEvent(index=index, kind="halved", partial=partial or task.partial or None)
        own = self._put_data(result)
        standing = self._shards.commit(own)
        if task.partial:
            self._store.delete(task.partial)
        return ShardEvent(
            index=index,
            kind="committed",
            is_own=standing.data_key == own.data_key,
        )

    def _put_data(self, drawn: DrawnShard) -> ShardCommit:
        shard, spec = drawn.shard, self._setup.spec
        folder = self._paths.data(f"shard-{shard.index:06d}-{secrets.token_hex(6)}")
        labels = self._rule.of(shard.start, shard.stop) if self._rule else None
        body = encode_shard(drawn.pixels, shard.start, spec.format, labels)
        data_key = f"{folder}shard-{shard.index:06d}.{suffix_of(spec.format)}"
        self._store.put(data_key, body)
        frames_key = ""
        if drawn.frames is not None:
            frames_key = f"{folder}frames.npy"
            self._store.put(frames_key, encode_array(drawn.frames))
        height, width, channels = drawn.pixels.shape[1:]
        return ShardCommit(
            index=shard.index,
            start=shard.start,
            stop=shard.stop,
            data_key=data_key,
            size_bytes=len(body),
            sha256=hash_bytes(body),
            pixel_sha256=hash_pixels(drawn.pixels),
            image_shape=(height, width, channels),
            format=spec.format,
            origin=self._origin,
            attempt=self._setup.attempt,
            worker=self._worker,
            seconds=drawn.seconds,
            frames_key=frames_key,
            labels_sha256="" if labels is None else hash_labels(labels.tolist()),
        )
