"""The verb `logs`."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.listing import Duration
from orchestrator.cli.output import Output, output_option
from orchestrator.cli.progress import ProgressView, going_on, on_interrupt
from orchestrator.cli.terminal import color_option
from orchestrator.client.ensure import Keeper
from orchestrator.client.status import POLL_EVERY_S, JobStatus, follow, job_status
from orchestrator.client.surroundings import surroundings
from orchestrator.errors import BadInputError, StoreError
from orchestrator.jobs.logs import LogCursor, LogLine, LogReader
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

_PAUSE_AFTER_ERROR_S = 2.0
_RAYS_COPY = re.compile(r"(\x1b\[\d+m)?\(\w+ pid=\d+")
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green")


@dataclass(frozen=True)
class _Shown:
    """Which lines are shown.

    Attributes:
        pattern: That hold this.
        since: That came since then.
        tail: The last so many of those that are there; None for all.
    """

    pattern: re.Pattern[str] | None = None
    since: datetime | None = None
    tail: int | None = None

    def takes(self, line: LogLine) -> bool:
        """Tell whether a line is shown; Ray's copy of another process's line is not."""
        return (
            not (line.stream.role == "driver" and _RAYS_COPY.match(line.text))
            and (self.since is None or line.at >= self.since)
            and (self.pattern is None or self.pattern.search(line.text) is not None)
        )

    def of(self, lines: Sequence[LogLine]) -> Sequence[LogLine]:
        """Return the lines of a first look that are shown."""
        shown = [line for line in lines if self.takes(line)]
        return shown if self.tail is None else shown[max(0, len(shown) - self.tail) :]


@click.command("logs")
@click.argument("job", cls=JobArgument)
@click.option("-f", "--follow", "stay", is_flag=True, help="Go on until the job has ended.")
@click.option("--rank", type=click.IntRange(min=0), help="Only processes of this rank.")
@click.option("--attempt", type=click.IntRange(min=1), help="Only this attempt.")
@click.option("--since", type=Duration(), help="Only what came within this time, as 10m or 2h.")
@click.option("--tail", type=click.IntRange(min=0), help="Only the last lines.")
@click.option("--grep", "pattern", metavar="REGEX", help="Only lines that hold this.")
@click.option("--times", is_flag=True, help="When each line reached the store.")
@color_option
@output_option
def logs_command(
    job: str,
    stay: bool,
    rank: int | None,
    attempt: int | None,
    since: timedelta | None,
    tail: int | None,
    pattern: str | None,
    times: bool,
    output: Output,
) -> None:
    r"""Show what a job's processes wrote, from the store, during and after.

    Only the job's own end ends `-f`, never a lost connection.

    \b
    Examples:
      ddpmctl logs digits -f
      ddpmctl logs @last --tail 20 --times
      ddpmctl logs digits --grep 'loss|error' --since 10m
    """
    store = surroundings(output.say).store
    job_id = find_job_id(store, job)
    read_spec(RecordStore(store), job_id)  # a group has no logs of its own and says whose to read
    reader = LogReader(store, JobPaths(job_id), rank=rank, attempt=attempt)
    shown = _Shown(_pattern(pattern), datetime.now(UTC) - since if since else None, tail)
    said = False
    for lines in _looks(output, store, job_id, reader, stay):
        for line in lines if said else shown.of(lines):
            if shown.takes(line):
                output.line(_as_json(line), line_text(line, times))
        said = said or bool(lines)
    if not said:
        output.say(f"{job_id} has written nothing yet; `ddpmctl events {job_id}` shows its history")


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise BadInputError(f"--grep {text!r} is no regular expression: {error}") from error


def _as_json(line: LogLine) -> dict[str, object]:
    stream = line.stream
    whose = {"attempt": stream.attempt, "role": stream.role, "rank": stream.rank}
    return {**whose, "at": line.at.isoformat(), "text": line.text}


def line_text(line: LogLine, times: bool = False) -> str:
    """Return a line with whose it is, in the colour of its rank."""
    stream = line.stream
    at = f"{line.at:%H:%M:%S} " if times else ""
    colour = "bright_black" if stream.role == "driver" else _COLOURS[stream.rank % len(_COLOURS)]
    head = click.style(f"[{stream.attempt} {stream.role}-{stream.rank}]", fg=colour)
    return f"{at}{head} {line.text}"


def follow_logs(output: Output, store: ObjectStore, job_id: str) -> JobStatus:
    """Wait for a job's end, showing its progress and what its processes write."""
    reader, cursor, shown = LogReader(store, JobPaths(job_id)), LogCursor(), _Shown()
    keeper = Keeper(store, output.say)
    last: JobStatus | None = None
    with on_interrupt(output, going_on(job_id)), ProgressView(output.as_json) as view:
        for last in follow(store, job_id, None):
            with suppress(StoreError):  # the next look reads them
                lines, cursor = reader.poll(cursor, at_end=last.state.has_ended)
                for line in shown.of(lines):
                    view.say(click.unstyle(line_text(line)))
            view.show(last)
            keeper.look()
    return last or job_status(store, job_id)


def _looks(
    output: Output, store: ObjectStore, job_id: str, reader: LogReader, stay: bool
) -> Iterator[Sequence[LogLine]]:
    records, cursor = RecordStore(store), LogCursor()
    while True:
        try:
            ended = records.read(job_id).record.state.has_ended
            lines, cursor = reader.poll(cursor, at_end=ended)
        except StoreError as error:
            if not stay:
                raise
            output.say(f"waiting: {error}")
            time.sleep(_PAUSE_AFTER_ERROR_S)
            continue
        yield lines
        if not stay or (ended and not lines):
            return
        time.sleep(POLL_EVERY_S)
