"""The first thing that a sample worker draws: one image in few steps, stored, read, thrown away."""

import threading
from collections.abc import Callable

import numpy as np

from orchestrator.artifacts.samples.commits import ShardCommit
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.attempts.smoke import smoke_part
from orchestrator.errors import OrchestratorError, ShardDamagedError
from orchestrator.fleet.work import Watch
from orchestrator.jobs.units import Shard
from orchestrator.sampling.drawing import DrawnShard, ShardSampler, UnfinishedShard
from orchestrator.store.outages import Backoff, outlast_outage

_FIRST_IMAGE = Shard(0, 0, 1)


def smoke_drawing(
    sampler: ShardSampler, put: Callable[[DrawnShard], ShardCommit], shards: SampleShards
) -> None:
    """Draw an image in a microbatch of the job's own shape, store it, read it back, remove it.

    Only what another worker would meet as well counts as the smoke test's: a worker whose machine
    is broken dies as at any other time, and another one takes its place.

    Args:
        sampler: Draws with the job's network, in few steps.
        put: Stores a shard's data, without a commit.
        shards: Reads them.

    Raises:
        SmokeTestError: It did not work.
    """
    with smoke_part("drawing an image", OrchestratorError):
        drawn = sampler.draw(UnfinishedShard(shard=_FIRST_IMAGE), Watch())
    if not isinstance(drawn, DrawnShard):
        raise TypeError("nobody told the smoke test to stop")
    with smoke_part("storing an image and reading it back", OrchestratorError):
        outlast_outage(lambda: _try_store(drawn, put, shards), Backoff(), threading.Event())


def _try_store(
    drawn: DrawnShard, put: Callable[[DrawnShard], ShardCommit], shards: SampleShards
) -> None:
    stored = put(drawn)
    try:
        if not np.array_equal(shards.read(stored), drawn.pixels):
            raise ShardDamagedError(f"{stored.data_key} is not what was drawn")
    finally:
        shards.delete_data(stored)
