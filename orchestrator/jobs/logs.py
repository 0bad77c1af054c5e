"""Reads the logs of a job from the store, during and after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.store.keys import AttemptPaths, JobPaths
from orchestrator.store.numbered import NumberedFolder
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, order=True)
class LogStream:
    """Whose output it is."""

    attempt: int
    role: str
    rank: int


@dataclass(frozen=True)
class LogLine:
    """One line, without its end.

    Attributes:
        stream: Whose it is.
        text: What it says.
        at: When it reached the store, by the store's clock: within seconds of being written.
    """

    stream: LogStream
    text: str
    at: datetime = field(compare=False, default=datetime.min.replace(tzinfo=UTC))


@dataclass(frozen=True)
class StreamPosition:
    """The last piece that was read, and the beginning of a line that it ended with."""

    number: int = 0
    rest: bytes = b""


@dataclass(frozen=True)
class LogCursor:
    """How far a job's logs were read."""

    positions: Mapping[LogStream, StreamPosition] = field(default_factory=dict)


def stream_folder(paths: AttemptPaths, role: str, rank: int) -> str:
    """Return the key of a stream's folder."""
    return f"{paths.logs}{role}-{rank}/"


def read_log(
    store: ObjectStore, paths: AttemptPaths, role: str, rank: int, after: int = 0
) -> tuple[bytes, int]:
    """Return what a process wrote after a piece, and the number of the last piece now.

    Args:
        store: Where the log is.
        paths: The attempt's keys.
        role: The process's role.
        rank: Its rank.
        after: The last piece that the caller has; 0 for none.
    """
    text = b""
    for number, body in NumberedFolder(store, stream_folder(paths, role, rank), ".log").bodies(
        after
    ):
        text, after = text + body, number
    return text, after


class LogReader:
    """The logs of one job.

    Args:
        store: Where they are.
        paths: The job's keys.
        attempt: Only that attempt; all by default.
        role: Only that role.
        rank: Only that rank.
    """

    def __init__(
        self,
        store: ObjectStore,
        paths: JobPaths,
        *,
        attempt: int | None = None,
        role: str | None = None,
        rank: int | None = None,
    ) -> None:
        self._store = store
        self._paths = paths
        self._attempt = attempt
        self._role = role
        self._rank = rank

    def attempts(self) -> list[int]:
        """Return the numbers of the attempts that left anything, ascending."""
        names = self._store.list_folders(f"{self._paths.folder}attempts/")
        numbers = sorted(int(name) for name in names if name.isdigit())
        return [n for n in numbers if self._attempt in (None, n)]

    def streams(self) -> list[LogStream]:
        """Return the streams that there are, by attempt, role and rank."""
        return sorted(stream for n in self.attempts() for stream in self._streams_of(n))

    def _streams_of(self, attempt: int) -> list[LogStream]:
        found = []
        for name in self._store.list_folders(self._paths.attempt(attempt).logs):
            role, _, rank = name.rpartition("-")
            if not rank.isdigit():
                continue
            stream = LogStream(attempt, role, int(rank))
            if self._role in (None, stream.role) and self._rank in (None, stream.rank):
                found.append(stream)
        return found

    def poll(self, cursor: LogCursor, *, at_end: bool = False) -> tuple[list[LogLine], LogCursor]:
        """Return the lines that came since a cursor, and the cursor after them.

        Args:
            cursor: `LogCursor()` for the beginning, then what the last call returned.
            at_end: The job has ended, so that a last line without an end is one too.
        """
        lines: list[LogLine] = []
        positions = dict(cursor.positions)
        for stream in self.streams():
            position = positions.get(stream, StreamPosition())
            found, positions[stream] = self._read(stream, position, at_end)
            lines += found
        lines.sort(key=lambda line: line.at)  # those of one stream stay in their order
        return lines, LogCursor(positions)

    def _read(
        self, stream: LogStream, position: StreamPosition, at_end: bool
    ) -> tuple[list[LogLine], StreamPosition]:
        folder = stream_folder(self._paths.attempt(stream.attempt), stream.role, stream.rank)
        pieces = NumberedFolder(self._store, folder, ".log")
        lines: list[LogLine] = []
        number, rest, at = position.number, position.rest, LogLine(stream, "").at
        for number in pieces.numbers(position.number):
            piece = self._store.get(pieces.key(number))
            # Cut at line ends before it is decoded: a piece may end within a character.
            *whole, rest = (rest + piece.body).split(b"\n")
            at = piece.modified_at
            lines += [LogLine(stream, _decoded(line), at) for line in whole]
        if at_end and rest:
            lines.append(LogLine(stream, _decoded(rest), at))
            rest = b""
        return lines, StreamPosition(number, rest)

    def tail(self, stream: LogStream, num_lines: int) -> list[str]:
        """Return the last lines of a stream."""
        folder = stream_folder(self._paths.attempt(stream.attempt), stream.role, stream.rank)
        pieces = NumberedFolder(self._store, folder, ".log")
        text = b""
        for number in reversed(pieces.numbers()):
            text = self._store.get(pieces.key(number)).body + text
            if text.count(b"\n") > num_lines:
                break
        lines = text.decode("utf-8", errors="replace").splitlines()
        return lines[max(0, len(lines) - num_lines) :]


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r")
