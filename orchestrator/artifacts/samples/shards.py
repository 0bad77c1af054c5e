"""The shards of a sample set in the store: how one is committed once, and read back.

The images go first, as one object under a name of its own below the attempt's folder. One small
put-if-absent object at the job's key then names it with its hashes: only that makes the shard
exist. A copy that comes second removes its own data and changes nothing.
"""

import io
import logging
from collections.abc import Iterable, Iterator

import numpy as np

from orchestrator.artifacts.samples.commits import SHARD_COMMIT, ShardCommit
from orchestrator.artifacts.samples.encoding import Pixels, decode_shard
from orchestrator.errors import (
    ConditionFailedError,
    ObjectNotFoundError,
    ShardDamagedError,
    StoredFormError,
)
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)


class SampleShards:
    """The shards of one job's sample set."""

    def __init__(self, store: ObjectStore, paths: JobPaths) -> None:
        self._store = store
        self._paths = paths

    def commit(self, own: ShardCommit) -> ShardCommit:
        """Make data that are in the store the shard, unless it is committed already.

        Doing it again with the same data is doing it once, so a caller may repeat it after an
        outage that leaves open whether it happened.

        Returns:
            The commit that stands: this one, or an earlier copy's; then these data are removed.

        Raises:
            ShardDamagedError: What stands cannot be read or has another origin.
        """
        key, body = self._paths.shard(own.index), SHARD_COMMIT.encode(own)
        while True:
            try:
                self._store.put(key, body, if_absent=True)
                return own
            except ConditionFailedError:
                standing = self.find(own.index)
            if standing is not None:
                break
        if standing.data_key != own.data_key:
            logger.info("shard=%d is committed by %s", own.index, standing.worker)
            self.delete_data(own, spared=standing)
        _check_same_images(standing, own)
        return standing

    def find(self, index: int) -> ShardCommit | None:
        """Return a shard's commit, or None. Raises: ShardDamagedError."""
        key = self._paths.shard(index)
        try:
            commit = SHARD_COMMIT.value(self._store, key)
        except StoredFormError as error:
            raise ShardDamagedError(str(error)) from error
        if commit is not None and commit.index != index:
            raise ShardDamagedError(f"{key} is the commit of shard {commit.index}")
        return commit

    def indices(self) -> Iterator[int]:
        """Yield the numbers of the shards that are committed, ascending."""
        prefix = f"{self._paths.samples}shard-"
        names = (info.key.removeprefix(prefix) for info in self._store.list_objects(prefix))
        numbers = (name.removesuffix(".json") for name in names)
        yield from sorted(int(number) for number in numbers if number.isdigit())

    def read(self, commit: ShardCommit) -> Pixels:
        """Return a shard's images, verified: (N, H, W, C) uint8. Raises: ShardDamagedError."""
        return self.read_version(commit)[0]

    def read_version(self, commit: ShardCommit) -> tuple[Pixels, str]:
        """Return a shard's images, verified, and the ETag of what was read.

        Raises:
            ShardDamagedError: They are missing, or not what was committed.
        """
        try:
            stored = self._store.get(commit.data_key)
        except ObjectNotFoundError as error:
            raise ShardDamagedError(
                f"shard {commit.index}: its data {commit.data_key} are missing"
            ) from error
        return decode_shard(stored.body, commit), stored.etag

    def present_versions(self, data_keys: Iterable[str]) -> dict[str, str]:
        """Return the ETags of what lies under data keys now; those of what is gone are missing."""
        folders = sorted({key.rpartition("/")[0] + "/" for key in data_keys})
        return {
            info.key: info.etag for folder in folders for info in self._store.list_objects(folder)
        }

    def read_frames(self, commit: ShardCommit) -> Pixels:
        """Return the trajectories of a shard's first images: (K, F, H, W, C) uint8."""
        body = self._store.get(commit.frames_key).body
        frames: Pixels = np.load(io.BytesIO(body), allow_pickle=False)
        return frames

    def withdraw(self, index: int) -> None:
        """Remove a shard's commit, and its data where they can be named."""
        try:
            commit = self.find(index)
        except ShardDamagedError:
            commit = None
        self._store.delete(self._paths.shard(index))
        if commit is not None:
            self.delete_data(commit)

    def delete_data(self, commit: ShardCommit, spared: ShardCommit | None = None) -> None:
        """Remove the objects that a commit names, but none that `spared` names."""
        folder = f"{self._paths.folder}attempts/"
        kept = {spared.data_key, spared.frames_key} if spared else set()
        for key in {commit.data_key, commit.frames_key} - kept:
            if key.startswith(folder):
                self._store.delete(key)


def _check_same_images(standing: ShardCommit, own: ShardCommit) -> None:
    if standing.origin != own.origin:
        raise ShardDamagedError(
            f"shard {own.index} was committed from another checkpoint, seed or decision; "
            "submit under a new --id"
        )
    if standing.pixel_sha256 != own.pixel_sha256:
        logger.error(
            "shard=%d: %s and %s drew different pixels from the same numbers",
            own.index,
            standing.worker,
            own.worker,
        )
