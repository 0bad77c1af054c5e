"""The pictures of a source in order, however many: beyond some thousands they are kept on disk.

A million photos in a bucket are half a gigabyte of names; the process that lists them needs a page
of them at a time.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from orchestrator.artifacts.datasets.places import WHOLE

_FEW = 20_000  # held in memory
_PAGE = 4096
_CACHE_KIB = 8192


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the bytes of one picture lie.

    Attributes:
        name: Its path within the source, which orders the set.
        path: The file or archive that holds it, below the source's place.
        first_byte: In that file.
        size_bytes: WHOLE for all of the file.
        packed: Whether it is deflated.
        crc32: Of its bytes; -1 where nobody says.
        stamp: What changes when it does: a time, or an ETag.
    """

    name: str
    path: str
    first_byte: int = 0
    size_bytes: int = WHOLE
    packed: bool = False
    crc32: int = -1
    stamp: str = ""

    def to_json(self) -> list[Any]:
        """Return plain JSON values."""
        return [getattr(self, name) for name in self.__slots__]


def archive_of(entry: Entry) -> str:
    """Return the archive that an entry lies in; "" for a file of its own."""
    return "" if entry.path == entry.name else entry.path


def order_of(entry: Entry) -> tuple[bytes, bytes]:
    """Return what orders a set: the path within the source, then the archive that it lies in."""
    return os.fsencode(entry.name), os.fsencode(entry.path)


class Catalog(Sequence[Entry]):
    """Entries, which are added in any order and read in that of their names once `sort` was called.

    Args:
        entries: The first ones.
    """

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self._few = list(entries)
        self._disk: _Disk | None = None
        self._by_name: dict[tuple[str, str], Entry] = {}  # of the few, once somebody looks

    def add(self, entry: Entry) -> None:
        """Take an entry in."""
        self._few.append(entry)
        if len(self._few) >= _FEW:
            self._disk = self._disk or _Disk()
            self._disk.write(self._few)
            self._few = []

    def sort(self) -> Entry | None:
        """Bring all into order; return one that is there twice, if any is."""
        if self._disk is not None:
            self._disk.write(self._few)
            self._few = []
            return self._disk.sort()
        self._few.sort(key=order_of)
        pairs = zip(self._few, self._few[1:], strict=False)
        return next((one for one, other in pairs if order_of(one) == order_of(other)), None)

    def find(self, name: str, path: str) -> Entry | None:
        """Return the entry of this name in this file or archive; None where there is none."""
        if self._disk is not None:
            return self._disk.find(name, path)
        if len(self._by_name) != len(self._few):
            self._by_name = {(entry.name, entry.path): entry for entry in self._few}
        return self._by_name.get((name, path))

    def __len__(self) -> int:
        return len(self._few) + (self._disk.count if self._disk is not None else 0)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if self._disk is None:
            return self._few[index]
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return self._disk.read(start, stop)
        return self._disk.read(range(len(self))[index], range(len(self))[index] + 1)[0]

    def __iter__(self) -> Iterator[Entry]:
        for start in range(0, len(self), _PAGE):
            yield from self[start : start + _PAGE]


class Names(Sequence[str]):
    """The names of a catalog's entries, read as they are asked for."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [entry.name for entry in self._entries[index]]
        return self._entries[index].name

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._entries)


class _Disk:
    """Entries in a database of SQLite's own, without a name, which goes with the process.

    Attributes:
        count: How many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._base.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute("CREATE TABLE found (name BLOB, path BLOB, row TEXT)")

    def write(self, entries: Sequence[Entry]) -> None:
        """Take entries in."""
        rows = ((*order_of(entry), json.dumps(entry.to_json())) for entry in entries)
        with self._lock:
            self._base.execute("BEGIN")
            self._base.executemany("INSERT INTO found VALUES (?, ?, ?)", rows)
            self._base.execute("COMMIT")
        self.count += len(entries)

    def sort(self) -> Entry | None:
        """Number the entries in their order; return one that is there twice, if any is."""
        with self._lock:
            self._base.execute(
                "CREATE TABLE entry (number INTEGER PRIMARY KEY, name BLOB, path BLOB, row TEXT)"
            )
            self._base.execute(
                "INSERT INTO entry (name, path, row) SELECT * FROM found ORDER BY name, path"
            )
            self._base.execute("DROP TABLE found")
            self._base.execute("CREATE INDEX by_name ON entry (name, path)")
            twice = self._base.execute(
                "SELECT row FROM entry GROUP BY name, path HAVING count(*) > 1 LIMIT 1"
            ).fetchone()
        return None if twice is None else _entry(twice[0])

    def read(self, start: int, stop: int) -> list[Entry]:
        """Return the entries from one to another."""
        with self._lock:
            rows = self._base.execute(
                "SELECT row FROM entry WHERE number > ? AND number <= ? ORDER BY number",
                (start, stop),
            ).fetchall()
        return [_entry(row) for (row,) in rows]

    def find(self, name: str, path: str) -> Entry | None:
        """Return the entry of a name in a file."""
        with self._lock:
            row = self._base.execute(
                "SELECT row FROM entry WHERE name = ? AND path = ?",
                (os.fsencode(name), os.fsencode(path)),
            ).fetchone()
        return None if row is None else _entry(row[0])


def _entry(row: str) -> Entry:
    return Entry(*json.loads(row))
