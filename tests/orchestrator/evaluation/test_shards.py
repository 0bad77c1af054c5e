"""Of two workers that commit one shard, one counts, whatever happens to their answers."""

import json
from contextlib import suppress

import numpy as np
import pytest

from ddpm.process.bound_sums import BoundSums
from orchestrator.errors import ConditionFailedError, ShardDamagedError
from orchestrator.evaluation.bound_shards import BoundShards
from orchestrator.evaluation.feature_shards import FeatureShards
from orchestrator.jobs.units import Shard
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore

SHARD = Shard(0, 0, 2)


class TwiceStore(MemoryStore):
    """A store whose clients send every put twice, and take an equal object for their own.

    So `S3Store` does where the first answer was lost.
    """

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object, or meet one that is equal."""
        with suppress(ConditionFailedError):
            return super().put(key, body, if_absent=if_absent, if_match=if_match)
        if (standing := self.get(key)).body == body:
            return standing.etag
        raise ConditionFailedError(key)


def test_one_of_two_workers_with_the_same_features_counts() -> None:
    """The images of a shard that counted twice would be told twice."""
    store, features = TwiceStore(), np.ones((2, 3), np.float32)
    workers = [FeatureShards(store, "e" * 64, "i" * 64) for _ in range(2)]
    assert [worker.put(SHARD, features) for worker in workers] == [True, False]
    assert workers[0].put(SHARD, features), "its own, sent again"
    assert np.array_equal(workers[1].read(SHARD), features)


def test_one_of_two_workers_with_the_same_bound_counts() -> None:
    """Likewise where the object itself is the commit."""
    store, one = TwiceStore(), np.ones(3)
    draws = np.ones((2, 1))
    sums = BoundSums(
        prior=np.ones(2),
        denoising=draws,
        decoder=draws,
        term_sums=one,
        term_squares=one,
        term_counts=one,
    )
    workers = [BoundShards(store, JobPaths("j")) for _ in range(2)]
    assert [worker.put(SHARD, sums) for worker in workers] == [True, False]
    assert workers[0].put(SHARD, sums), "its own, sent again"
    assert workers[1].read(SHARD).num_images == SHARD.num_images


def test_features_of_an_older_version_are_read_and_those_of_a_newer_one_refused() -> None:
    """Features are shared between jobs, so whoever wrote them may be of another version."""
    store = MemoryStore()
    shards = FeatureShards(store, "e" * 64, "i" * 64)
    shards.put(SHARD, np.ones((2, 3), np.float32))
    (key,) = (key for key in store.objects if key.endswith(".json"))
    written = json.loads(store.get(key).body)
    assert written["format_version"] == 1
    store.put(key, json.dumps({name: written[name] for name in ("data_key", "sha256")}).encode())
    assert shards.read(SHARD).shape == (2, 3)
    store.put(key, json.dumps({**written, "format_version": 9}).encode())
    with pytest.raises(ShardDamagedError, match="a newer version wrote it"):
        shards.read(SHARD)
