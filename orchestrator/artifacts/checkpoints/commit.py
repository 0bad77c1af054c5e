"""What a checkpoint's commit says, and its form in the store."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import CheckpointError, StoredFormError
from orchestrator.store.codec import Codec
from orchestrator.store.objects import StoredObject


@dataclass(frozen=True)
class DataFile:
    """One file of a checkpoint."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CheckpointCommit:
    """What makes a checkpoint exist: the names, sizes and hashes of its files.

    Attributes:
        step: Training steps that it holds.
        attempt: The attempt that wrote it.
        folder: Key of the folder of its data, ending in "/".
        files: Its files, by name.
        extra: What the writer had to say, as JSON.
    """

    step: int
    attempt: int
    folder: str
    files: tuple[DataFile, ...]
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash over the names, sizes and hashes of the files: equal contents, equal hash."""
        return hash_of_files(self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)


def hash_of_files(files: Collection[DataFile]) -> str:
    """Return a hash over names, sizes and hashes: equal contents, equal hash."""
    rows = [[file.name, file.size_bytes, file.sha256] for file in files]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def describe_file(path: Path) -> DataFile:
    """Return the name, size and hash of a local file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return DataFile(path.name, path.stat().st_size, digest)


_COMMIT = Codec(CheckpointCommit, "commit of a checkpoint", indent=1)


def encode_commit(commit: CheckpointCommit) -> bytes:
    """Return a commit as it is stored."""
    return _COMMIT.encode(commit)


def decode_commit(stored: StoredObject) -> CheckpointCommit:
    """Return a commit from the store; keys of later versions are ignored.

    Raises:
        CheckpointError: It is damaged, of a later format, or names files elsewhere.
    """
    try:
        commit = _COMMIT.decode(stored.body, stored.key)
    except StoredFormError as error:
        raise CheckpointError(str(error)) from error
    if any(Path(file.name).name != file.name for file in commit.files):
        raise CheckpointError(f"{stored.key} names a file outside its folder")
    return commit
