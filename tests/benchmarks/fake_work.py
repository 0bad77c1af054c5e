"""A worker that draws nothing, so that a benchmark measures the fleet alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from orchestrator.artifacts.samples.commits import SetOrigin, ShardCommit
from orchestrator.artifacts.samples.encoding import encode_shard, hash_bytes, hash_pixels
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.sampling.drawing import DrawnShard
from orchestrator.sampling.worker import Result
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store


@dataclass(frozen=True)
class FakeSetup:
    """Opens workers that draw nothing; with a store, they make real commits of grey images.

    Attributes:
        store_uri: Where commits go; "" for nowhere.
        job_id: Whose commits they are.
        shard_size: Images of a shard.
    """

    store_uri: str = ""
    job_id: str = ""
    shard_size: int = 100

    def open(self, worker: str, decisions: Decisions | None) -> "FakeWork":
        """Return a worker."""
        del decisions
        return FakeWork(self, worker)


class FakeWork:
    """A network that costs nothing, so that only the fleet is measured."""

    proposal = Decisions({"fake": True})
    remarks: Sequence[str] = ()

    def __init__(self, setup: FakeSetup, worker: str) -> None:
        self._setup = setup
        self._worker = worker
        self._store = open_store(setup.store_uri) if setup.store_uri else None
        self.pixels = np.full((setup.shard_size, 8, 8, 1), 128, np.uint8)

    def begin(self, decisions: Decisions) -> Self:
        """Have nothing to build."""
        del decisions
        return self

    def compute(self, task: ShardTask, watch: Watch) -> Result:
        """Draw nothing."""
        if self._store is None:
            return None
        pixels = self.pixels[: task.shard.num_images]
        return DrawnShard(shard=task.shard, pixels=pixels, frames=None, seconds=0.0)

    def keep(self, task: ShardTask, result: Result) -> ShardEvent:
        """Commit to the store, if there is one."""
        if isinstance(result, DrawnShard):
            self.commit(result)
        return ShardEvent(index=task.shard.index, kind="committed", is_own=True)

    def commit(self, drawn: DrawnShard) -> None:
        """Make a shard's data and its commit."""
        assert self._store is not None
        shard, paths = drawn.shard, JobPaths(self._setup.job_id)
        body = encode_shard(drawn.pixels, shard.start, "npy")
        key = f"{paths.attempt(1).data(f'{shard.index}')}shard-{shard.index:06d}.npy"
        self._store.put(key, body)
        commit = ShardCommit(
            index=shard.index,
            start=shard.start,
            stop=shard.stop,
            data_key=key,
            size_bytes=len(body),
            sha256=hash_bytes(body),
            pixel_sha256=hash_pixels(drawn.pixels),
            image_shape=(8, 8, 1),
            format="npy",
            origin=SetOrigin(checkpoint_sha256="", seed=0, decisions_sha256=""),
            attempt=1,
            worker=self._worker,
            seconds=0.0,
        )
        SampleShards(self._store, paths).commit(commit)
