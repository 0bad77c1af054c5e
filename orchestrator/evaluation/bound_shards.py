"""What a likelihood's images gave, in the store by shards: the object itself is the commit."""

import io
import uuid
from dataclasses import dataclass, field, fields

import numpy as np

from ddpm.process.bound_sums import BoundSums
from orchestrator.counts import counted
from orchestrator.errors import ConditionFailedError, ShardDamagedError
from orchestrator.evaluation.npz import read_npz
from orchestrator.jobs.units import Shard, ShardPlan
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True)
class BoundShards:
    """The shards of one likelihood.

    Attributes:
        store: Where they lie.
        job: Whose they are.
        writer: Names who commits. Two workers compute the same bytes, and by those alone a worker
            whose client sent a commit twice could not tell its own from the other's.
    """

    store: ObjectStore
    job: JobPaths
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)

    def is_committed(self, shard: Shard) -> bool:
        """Return whether a shard is there."""
        return self.store.exists(self.job.bound(shard.index))

    def committed(self) -> set[int]:
        """Return the numbers of the shards that are there."""
        names = (info.key.rpartition("/")[2] for info in self.store.list_objects(self.job.bounds))
        return {int(name.removeprefix("shard-").removesuffix(".npz")) for name in names}

    def put(self, shard: Shard, sums: BoundSums) -> bool:
        """Commit a shard; return whether this is the one that counts."""
        packed = io.BytesIO()
        arrays = {one.name: getattr(sums, one.name) for one in _FIELDS}
        np.savez_compressed(packed, writer=np.array(self.writer), **arrays)
        try:
            self.store.put(self.job.bound(shard.index), packed.getvalue(), if_absent=True)
        except ConditionFailedError:
            return False
        return True

    def read(self, shard: Shard) -> BoundSums:
        """Return a shard, whose archive carries checksums. Raises: ShardDamagedError."""
        key = self.job.bound(shard.index)
        body = self.store.get(key).body
        try:
            arrays = read_npz(body)
            sums = BoundSums(**{one.name: arrays[one.name] for one in _FIELDS})
        except (ValueError, KeyError) as error:
            raise ShardDamagedError(f"{key} cannot be read ({error}); delete it") from error
        if sums.num_images != shard.num_images:
            raise ShardDamagedError(f"{key} is of {counted(sums.num_images, 'image')}; delete it")
        return sums

    def read_all(self, plan: ShardPlan) -> BoundSums:
        """Return the shards of a plan as one. Raises: ShardDamagedError."""
        return BoundSums.joined([self.read(shard) for shard in plan])


_FIELDS = fields(BoundSums)
