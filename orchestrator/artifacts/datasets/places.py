"""Where the bytes of a source lie: below a local folder, or below a prefix of a store.

Both are read by range, so an archive in a bucket is read where it lies and never copied whole.
"""

import errno
import io
import os
import stat
from collections import OrderedDict
from pathlib import Path
from typing import IO, Protocol, cast

from orchestrator.errors import ConditionFailedError, DatasetError, ObjectNotFoundError
from orchestrator.store.objects import ObjectStore

WHOLE = -1
_BLOCK_BYTES = 4 << 20
_BLOCKS_KEPT = 4
_BUFFER_BYTES = 1 << 20


class Place(Protocol):
    """Files by their path below a root.

    Attributes:
        name: What messages call the root.
        origin: What other machines find it by, a path or an s3:// URI; "" where they cannot.
    """

    name: str
    origin: str

    def read(self, path: str, first_byte: int = 0, size_bytes: int = WHOLE) -> bytes:
        """Return a range of a file. Raises: DatasetError."""

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading at any place in it. Raises: DatasetError."""

    def full_name(self, path: str) -> str:
        """Return what messages call a file."""


class LocalPlace:
    """Files below a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.name = self.origin = str(root)
        self.root = root

    def read(self, path: str, first_byte: int = 0, size_bytes: int = WHOLE) -> bytes:
        """Return a range of a file. Raises: DatasetError."""
        with self._opened(path) as file:
            try:
                file.seek(first_byte)
                return file.read(size_bytes)
            except OSError as error:
                raise self._unreadable(path, error) from error

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading at any place in it. Raises: DatasetError."""
        return self._opened(path, _BUFFER_BYTES)

    def full_name(self, path: str) -> str:
        """Return what messages call a file."""
        return os.path.join(self.name, path)  # noqa: PTH118 - for people, not for the disk

    def _opened(self, path: str, buffer_bytes: int = -1) -> IO[bytes]:
        try:
            return open(self.root / path, "rb", buffering=buffer_bytes, opener=_no_pipe)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: OSError) -> DatasetError:
        return DatasetError(f"{self.full_name(path)} cannot be read: {error.strerror or error}")


def _no_pipe(path: str, flags: int) -> int:
    """Open a file without waiting for whoever writes to it: a pipe would be waited for for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ESPIPE, "it is a pipe, which can be read once alone")
    return descriptor


class StorePlace:
    """Objects below a store's prefix."""

    def __init__(self, store: ObjectStore) -> None:
        self.name = self.origin = store.uri
        self.store = store

    def read(self, path: str, first_byte: int = 0, size_bytes: int = WHOLE) -> bytes:
        """Return a range of an object. Raises: DatasetError."""
        try:
            if size_bytes == WHOLE and first_byte == 0:
                return self.store.get(path).body
            return self.store.get_range(path, first_byte, size_bytes)
        except ObjectNotFoundError as error:
            raise DatasetError(f"{self.full_name(path)} is gone") from error

    def open(self, path: str) -> IO[bytes]:
        """Open an object for reading at any place in it. Raises: DatasetError."""
        infos = (i for i in self.store.list_objects(path) if i.key == path)
        info = next(infos, None)
        if info is None:
            raise DatasetError(f"{self.full_name(path)} is gone")
        raw = StoredFile(self.store, path, info.size_bytes, info.etag)
        return cast(IO[bytes], io.BufferedReader(raw, _BUFFER_BYTES))

    def full_name(self, path: str) -> str:
        """Return what messages call an object."""
        return f"{self.name}/{path}"


class StoredFile(io.RawIOBase):
    """An object of a store as a file that can be read from anywhere, a few blocks at a time.

    Args:
        store: Where it lies.
        key: Its key.
        size_bytes: Of all of it.
        etag: A read fails if the object is another one by then.
    """

    def __init__(self, store: ObjectStore, key: str, size_bytes: int, etag: str) -> None:
        self._store = store
        self._key = key
        self._size_bytes = size_bytes
        self._etag = etag
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the place of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the place of the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fill a buffer as far as the block at this place goes."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if self._position >= self._size_bytes or not len(view):
            return 0
        number, offset = divmod(self._position, _BLOCK_BYTES)
        piece = self._block(number)[offset : offset + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        first = number * _BLOCK_BYTES
        size = min(_BLOCK_BYTES, self._size_bytes - first)
        try:
            block = self._store.get_range(self._key, first, size, etag=self._etag)
        except (ConditionFailedError, ObjectNotFoundError) as error:
            raise DatasetError(
                f"{self._store.uri}/{self._key} was changed while it was read; submit again"
            ) from error
        self._blocks[number] = block
        while len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return block
