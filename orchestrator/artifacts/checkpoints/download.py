"""The files of a checkpoint on this machine, verified; kept for a day after their last use."""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from orchestrator.artifacts.checkpoints.commit import CheckpointCommit, describe_file
from orchestrator.errors import CheckpointError, ObjectNotFoundError
from orchestrator.store.objects import ObjectStore

_CACHE_LIFETIME_S = 24 * 3600.0


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint whose files lie, verified, in a local folder."""

    commit: CheckpointCommit
    folder: Path


def fetch(store: ObjectStore, commit: CheckpointCommit, cache: Path) -> LocalCheckpoint:
    """Return a checkpoint's files from this machine's cache, filled at the first call.

    Processes of one machine may call this at once: one downloads, the others wait.

    Args:
        store: Where the files lie.
        commit: Which they are.
        cache: Folder of this machine's copies; made if absent.

    Raises:
        CheckpointError: A file is missing, or its size or hash is not the committed one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / commit.sha256
    with FileLock(cache / f"{commit.sha256}.lock"):
        if not final.is_dir():
            _forget_unused(cache)
            with tempfile.TemporaryDirectory(prefix="part-", dir=cache) as part:
                whole = Path(part) / "whole"
                whole.mkdir()
                download(store, commit, whole)
                whole.rename(final)
        os.utime(final)
    return LocalCheckpoint(commit, final)


def download(store: ObjectStore, commit: CheckpointCommit, folder: Path) -> None:
    """Write a checkpoint's files to a folder, each as it was committed.

    Raises:
        CheckpointError: A file is missing, or its size or hash is not the committed one.
    """
    for file in commit.files:
        key, path = commit.folder + file.name, folder / file.name
        try:
            store.get_file(key, path)
        except ObjectNotFoundError as error:
            raise CheckpointError(f"{key} is missing") from error
        written = describe_file(path)
        if written.size_bytes != file.size_bytes:
            raise CheckpointError(
                f"{key} has {written.size_bytes} bytes instead of {file.size_bytes}"
            )
        if written != file:
            raise CheckpointError(f"{key} is damaged: its SHA-256 is not the committed one")


def _forget_unused(cache: Path) -> None:
    for entry in cache.iterdir():
        try:
            is_old = time.time() - entry.stat().st_mtime > _CACHE_LIFETIME_S
        except FileNotFoundError:
            continue
        if is_old and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
