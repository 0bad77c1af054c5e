"""Checkpoints that are whole or absent.

Data files go under a name of their own below the attempt's folder, where nobody looks for them.
One small put-if-absent object at the job's key then names them with their sizes and hashes: only
that makes the checkpoint exist. A writer that comes second removes its own data and takes the
winner's. Readers believe nothing: they check every size and hash and fall back to an older one.
"""

import logging
import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from orchestrator.artifacts.checkpoints.commit import (
    CheckpointCommit,
    decode_commit,
    describe_file,
    encode_commit,
    hash_of_files,
)
from orchestrator.artifacts.checkpoints.download import LocalCheckpoint, download, fetch
from orchestrator.errors import CheckpointError, ConditionFailedError, ObjectNotFoundError
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectInfo, ObjectStore, StoredObject

logger = logging.getLogger(__name__)

REHEARSED_COMMIT = "commit.json"


class CheckpointStore:
    """The checkpoints of one job."""

    def __init__(self, store: ObjectStore, paths: JobPaths) -> None:
        self._store = store
        self._paths = paths
        # By key and ETag, which stands for what was read: each save looks at all that stand.
        self._known: dict[tuple[str, str], CheckpointCommit] = {}

    def commit(
        self, step: int, folder: Path, attempt: int, extra: Mapping[str, object]
    ) -> CheckpointCommit:
        """Make the files of a folder the job's checkpoint at a step, unless there is one.

        Doing it again with the same files is doing it once, so a caller may repeat it after an
        outage that leaves open whether it happened.

        Args:
            step: Training steps that the files hold.
            folder: A local folder with nothing but the files.
            attempt: The attempt that wrote them.
            extra: Anything to keep with it, as JSON.

        Returns:
            The checkpoint that stands: this one, or an earlier writer's that is whole.
        """
        own = self._put_data(step, folder, attempt, extra)
        standing = self._put_commit(own)
        if standing.folder != own.folder:
            self._delete_data(own)
        return standing

    def rehearse(self, folder: Path, attempt: int, back: Path) -> None:
        """Write the files of a folder as those of a checkpoint, read them back, and remove them.

        The commit goes beside the data, where nobody looks for one.

        Args:
            folder: A local folder with nothing but the files.
            attempt: The attempt that tries.
            back: A local folder for what comes back.

        Raises:
            CheckpointError: Something else came back.
        """
        own = self._put_data(0, folder, attempt, {}, f"smoke-{secrets.token_hex(8)}")
        key = f"{own.folder}{REHEARSED_COMMIT}"
        try:
            self._store.put(key, encode_commit(own), if_absent=True)
            download(self._store, decode_commit(self._store.get(key)), back)
        finally:
            self._store.delete(key)
            self._delete_data(own)

    def _put_data(
        self, step: int, folder: Path, attempt: int, extra: Mapping[str, object], name: str = ""
    ) -> CheckpointCommit:
        """Write the files under a name of their own and return what would commit them."""
        files = tuple(describe_file(path) for path in sorted(folder.iterdir()))
        unique = name or f"step-{step:09d}-{hash_of_files(files)[:16]}"
        own = CheckpointCommit(
            step=step,
            attempt=attempt,
            folder=self._paths.attempt(attempt).data(unique),
            files=files,
            extra=extra,
        )
        for file in files:
            self._store.put_file(own.folder + file.name, folder / file.name)
        return own

    def _put_commit(self, own: CheckpointCommit) -> CheckpointCommit:
        key = self._paths.checkpoint(own.step)
        standing: str | None = None
        while True:
            try:
                body = encode_commit(own)
                etag = self._store.put(key, body, if_absent=standing is None, if_match=standing)
                self._known[key, etag] = own
                return own
            except ConditionFailedError:
                logger.info("step=%d: another commit stands at %s", own.step, key)
            try:
                stored = self._store.get(key)
            except ObjectNotFoundError:
                standing = None  # retention removed it in between
                continue
            winner = self._winner(stored, own)
            if winner is not None:
                return winner
            standing = stored.etag  # only the broken one that was looked at

    def _winner(self, stored: StoredObject, own: CheckpointCommit) -> CheckpointCommit | None:
        """Return what the commit that stands says, unless its data are not whole."""
        try:
            standing = decode_commit(stored)
            if (standing.folder, standing.files) == (own.folder, own.files):
                return standing  # our own, from a put whose answer was lost
            with tempfile.TemporaryDirectory(prefix="ddpmctl-verify-") as folder:
                download(self._store, standing, Path(folder))
        except CheckpointError as error:
            logger.warning("replacing a checkpoint that cannot be read: %s", error)
            return None
        return standing

    def find(self, step: int) -> CheckpointCommit | None:
        """Return the commit at a step, or None.

        Raises:
            CheckpointError: There is one, but it cannot be read.
        """
        try:
            return decode_commit(self._store.get(self._paths.checkpoint(step)))
        except ObjectNotFoundError:
            return None

    def steps(self) -> list[int]:
        """Return the steps at which something is committed, ascending."""
        return sorted(self._standing())

    def _standing(self) -> dict[int, ObjectInfo]:
        """Return the objects of commits by step."""
        begin = f"{self._paths.checkpoints}step-"
        infos = self._store.list_objects(self._paths.checkpoints)
        digits = [(info.key.removeprefix(begin).removesuffix(".json"), info) for info in infos]
        return {int(number): info for number, info in digits if number.isdigit()}

    def listing(self) -> list[CheckpointCommit]:
        """Return the commits that can be read, by ascending step; data are not looked at."""
        known: dict[tuple[str, str], CheckpointCommit] = {}
        for step, info in sorted(self._standing().items()):
            try:
                commit = self._known.get((info.key, info.etag)) or self.find(step)
            except CheckpointError as error:
                logger.warning("%s", error)
                continue
            if commit is not None:
                known[info.key, info.etag] = commit
        self._known = known
        return list(known.values())

    def newest_whole(
        self, cache: Path, on_skip: Callable[[int, str], None]
    ) -> LocalCheckpoint | None:
        """Return the newest checkpoint that is whole, downloaded and verified.

        Args:
            cache: Folder of this machine's copies; made if absent.
            on_skip: Told the step of each newer one that is not whole, and why.

        Returns:
            The checkpoint, or None if there is no whole one.
        """
        for step in reversed(self.steps()):
            try:
                commit = self.find(step)
                if commit is not None:
                    return self.fetch(commit, cache)
            except CheckpointError as error:
                on_skip(step, str(error))
        return None

    def fetch(self, commit: CheckpointCommit, cache: Path) -> LocalCheckpoint:
        """Return a checkpoint's files from this machine's cache; see `download.fetch`."""
        return fetch(self._store, commit, cache)

    def refer(self, step: int, by: str) -> None:
        """Have a checkpoint kept for as long as a job that draws from it is not deleted."""
        self._store.put(self._paths.reference(step, by), b"")

    def let_go(self, step: int, by: str) -> None:
        """Take back what `refer` did."""
        self._store.delete(self._paths.reference(step, by))

    def prefer(self, step: int, by: str) -> None:
        """Have a checkpoint kept for somebody, in the place of the one that was before."""
        self.refer(step, by)
        wanted = self._paths.reference(step, by)
        for info in list(self._store.list_objects(self._paths.references)):
            named = info.key.removeprefix(self._paths.references).split("-", 2)[2]
            if named == by and info.key != wanted:
                self._store.delete(info.key)

    def retain(self, keep: int) -> list[int]:
        """Delete old checkpoints that no job refers to, oldest first.

        Args:
            keep: How many of the newest to keep; those whose data are gone don't count.

        Returns:
            The steps that were deleted.
        """
        kept, old = 0, []
        commits = self.listing()
        sizes = self._data_sizes(commits)
        for commit in reversed(commits):
            if kept >= max(keep, 1):
                old.append(commit)
            elif all(sizes.get(commit.folder + f.name) == f.size_bytes for f in commit.files):
                kept += 1
        referenced = self._referenced_steps() if old else frozenset()
        doomed = [commit for commit in reversed(old) if commit.step not in referenced]
        for commit in doomed:
            self._store.delete(self._paths.checkpoint(commit.step))
            self._delete_data(commit)
        return [commit.step for commit in doomed]

    def _referenced_steps(self) -> frozenset[int]:
        start = len(self._paths.references)
        names = (info.key[start:] for info in self._store.list_objects(self._paths.references))
        return frozenset(int(name.split("-")[1]) for name in names)

    def _data_sizes(self, commits: Iterable[CheckpointCommit]) -> dict[str, int]:
        folders = {self._paths.attempt(commit.attempt).all_data for commit in commits}
        infos = (info for folder in folders for info in self._store.list_objects(folder))
        return {info.key: info.size_bytes for info in infos}

    def _delete_data(self, commit: CheckpointCommit) -> None:
        for file in commit.files:
            self._store.delete(commit.folder + file.name)
