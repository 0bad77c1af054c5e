"""Features in the store, by shards, under the hashes of their extractor and of their images.

They belong to no job: whoever evaluates the same images with the same extractor finds them. The
data come first, under the hash of their bytes; a put-if-absent commit then makes the shard exist.
"""

import hashlib
import io
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ddpm.metrics.blocks import Features
from orchestrator.errors import (
    ConditionFailedError,
    ObjectNotFoundError,
    ShardDamagedError,
    StoredFormError,
)
from orchestrator.jobs.units import Shard, ShardPlan
from orchestrator.store.codec import Codec
from orchestrator.store.keys import feature_folder
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FeatureCommit:
    """What makes a shard of features exist.

    Attributes:
        data_key: Where they lie.
        sha256: Hash of that object.
        dimensions: D.
        writer: Who computed them; "" where nobody wrote that.
    """

    data_key: str
    sha256: str
    dimensions: int = 0
    writer: str = ""


_FEATURE_COMMIT = Codec(FeatureCommit, "commit of features")


class FeatureShards:
    """The features of one set by one extractor."""

    def __init__(self, store: ObjectStore, extractor_sha256: str, images_sha256: str) -> None:
        self._store = store
        self._folder = feature_folder(extractor_sha256, images_sha256)
        # Two workers compute the same bytes, and by those alone a worker whose client sent a commit
        # twice could not tell its own from the other's.
        self._writer = uuid.uuid4().hex

    def _commit_key(self, shard: Shard) -> str:
        return f"{self._folder}shard-{shard.start:09d}-{shard.stop:09d}.json"

    def is_committed(self, shard: Shard) -> bool:
        """Return whether somebody has computed a shard."""
        return self._store.exists(self._commit_key(shard))

    def committed(self) -> set[tuple[int, int]]:
        """Return (start, stop) of each shard that is there."""
        names = (info.key.rpartition("/")[2] for info in self._store.list_objects(self._folder))
        parts = (name.removesuffix(".json").split("-") for name in names if name.endswith(".json"))
        return {(int(part[1]), int(part[2])) for part in parts}

    def put(self, shard: Shard, features: Features) -> bool:
        """Commit a shard's features (n, D); return whether these are the ones that count."""
        packed = io.BytesIO()
        np.save(packed, np.ascontiguousarray(features, np.float32), allow_pickle=False)
        body = packed.getvalue()
        sha256 = hashlib.sha256(body).hexdigest()
        data_key = f"{self._folder}{sha256}.npy"
        self._store.put(data_key, body)
        commit = FeatureCommit(
            data_key=data_key, sha256=sha256, dimensions=features.shape[1], writer=self._writer
        )
        try:
            self._store.put(self._commit_key(shard), _FEATURE_COMMIT.encode(commit), if_absent=True)
        except ConditionFailedError:
            return False
        return True

    def read(self, shard: Shard) -> Features:
        """Return a shard's features, verified: (n, D) float32. Raises: ShardDamagedError."""
        key = self._commit_key(shard)
        try:
            commit = _FEATURE_COMMIT.decode(self._store.get(key).body, key)
            body = self._store.get(commit.data_key).body
        except ObjectNotFoundError as error:
            raise ShardDamagedError(f"the features of {key} cannot be read: {error}") from error
        except StoredFormError as error:
            raise ShardDamagedError(str(error)) from error
        if hashlib.sha256(body).hexdigest() != commit.sha256:
            raise ShardDamagedError(f"the features of {key} are damaged; delete {self._folder}")
        features: Features = np.load(io.BytesIO(body), allow_pickle=False)
        if features.ndim != 2 or len(features) != shard.num_images:
            raise ShardDamagedError(f"the features of {key} are of other images; delete it")
        return features

    def read_all(self, plan: ShardPlan) -> Iterator[Features]:
        """Yield the shards of a plan in order. Raises: ShardDamagedError."""
        return (self.read(shard) for shard in plan)
