"""The object store behind everything: conditional writes, whole objects, the store's own clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing tells of an object; the time is the store's."""

    key: str
    size_bytes: int
    etag: str
    modified_at: datetime


@dataclass(frozen=True)
class StoredObject:
    """An object with its body; the times are the store's.

    Attributes:
        key: Its key.
        body: Its bytes.
        etag: What `if_match` compares with.
        modified_at: When it was written.
        read_at: When it was read.
    """

    key: str
    body: bytes
    etag: str
    modified_at: datetime
    read_at: datetime

    @property
    def age(self) -> timedelta:
        """How long ago it was written, by the store's clock alone."""
        return self.read_at - self.modified_at


@dataclass(frozen=True)
class OpenUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    size_bytes: int


class ObjectStore(Protocol):
    """Whole objects under keys, with conditional writes.

    Every method raises `StoreUnavailableError` or `StoreRefusedError` when the store does not
    answer or does not let us in.

    Attributes:
        uri: How users name it, as s3://bucket/prefix.
        address: The server and the uri: servers of different stacks may hold buckets of one name.
    """

    uri: str
    address: str

    def get(self, key: str) -> StoredObject:
        """Return an object. Raises: ObjectNotFoundError."""

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object and return its ETag. Raises: ConditionFailedError."""

    def get_range(self, key: str, first_byte: int, size_bytes: int, *, etag: str = "") -> bytes:
        """Return a part, of one version. Raises: ObjectNotFoundError, ConditionFailedError."""

    def get_file(self, key: str, path: Path) -> None:
        """Copy an object to a local file. Raises: ObjectNotFoundError."""

    def put_file(self, key: str, path: Path) -> None:
        """Copy a local file to an object, in parts where it is large."""

    def delete(self, key: str) -> None:
        """Remove an object; removing an absent one is no error."""

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix` and lies above `after`, by key."""

    def list_folders(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below `prefix` (which ends in /)."""

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""

    def open_uploads(self, older_than: timedelta) -> list[OpenUpload]:
        """Return the multipart uploads that were begun so long ago and never ended."""

    def abort_upload(self, upload: OpenUpload) -> None:
        """Remove the parts of an upload; one that is gone is no error."""

    def now(self) -> datetime:
        """Return the time by the store's clock."""
