"""What fits on the terminal, and its colours."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from orchestrator.client.describe import describe_job, progress_text
from orchestrator.client.status import JobStatus, ListedJob
from orchestrator.lifecycle.state import JobState

_COLOURS = {
    JobState.QUEUED: "yellow",
    JobState.STARTING: "cyan",
    JobState.RUNNING: "blue",
    JobState.STOPPING: "magenta",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "bright_black",
}
_GAP = "  "
_LEAST = 6

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def color_option(verb: _Verb) -> _Verb:
    """Give a verb `--color auto|always|never`; auto minds NO_COLOR and plain terminals."""
    return click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        expose_value=False,
        callback=_take_color,
        help="Colours: auto where a terminal shows them and NO_COLOR is not set.",
    )(verb)


def _take_color(context: click.Context, _parameter: click.Parameter, value: str) -> None:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    context.color = {"always": True, "never": False}.get(value, False if plain else None)


def width_of_terminal() -> int | None:
    """Return the columns of the terminal that standard output is; None where it is none."""
    if "COLUMNS" not in os.environ and not sys.stdout.isatty():
        return None
    return max(20, shutil.get_terminal_size((80, 24)).columns)


def shortened(text: str, width: int) -> str:
    """Return a text of at most that width, its middle left out."""
    if len(text) <= width:
        return text
    dots = "\N{HORIZONTAL ELLIPSIS}" if _knows("\N{HORIZONTAL ELLIPSIS}") else ".."
    kept = max(0, width - len(dots))
    front = (kept + 1) // 2
    return text[:front] + dots[:width] + text[len(text) - (kept - front) :]


def shortened_to_end(line: str, width: int) -> str:
    """Return a line without what does not fit at its end; colours do not count."""
    return line if len(click.unstyle(line)) <= width else click.unstyle(line)[:width]


def _knows(character: str) -> bool:
    try:
        character.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def colored(state: JobState | str | None, text: str) -> str:
    """Return a text in the colour of a state."""
    return click.style(text, fg=_COLOURS.get(JobState(state))) if state in _COLOURS else text


def job_text(status: JobStatus) -> str:
    """Return one job in full, its first line in the colour of its state."""
    first, *rest = describe_job(status).split("\n")
    job_id, gap, state = first.partition("  ")
    return "\n".join([f"{job_id}{gap}{colored(status.state, state)}", *rest])


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its head.
        keep: Columns with low numbers go first where room is short; 0 stays and is shortened.
        short: Its cells for a narrow terminal; None where they have no shorter form.
    """

    title: str
    keep: int
    cells: Sequence[str]
    short: Sequence[str] | None = None

    @property
    def width(self) -> int:
        """Columns of the terminal that it takes."""
        return max(len(self.title), *(len(cell) for cell in self.cells), 0)


def progress_column(jobs: Sequence[ListedJob], keep: int) -> Column:
    """Return how far jobs are; where room is short, without their pace and bits per dimension."""
    whole = [progress_text(job) for job in jobs]
    parts = [text.split(", ") for text in whole]
    short = [", ".join(p[:1] + [one for one in p[1:] if one.startswith("loss ")]) for p in parts]
    return Column("PROGRESS", keep, whole, short)


def table(columns: Sequence[Column], states: Sequence[JobState], width: int | None) -> str:
    """Return rows that fit the terminal, coloured by their state.

    Args:
        columns: At least one of them stays whatever the room.
        states: Of each row.
        width: Of the terminal; None for any.
    """
    fitting = _fitted(list(columns), width)
    rows = [[column.title for column in fitting]]
    rows += [list(cells) for cells in zip(*(column.cells for column in fitting), strict=True)]
    widths = [column.width for column in fitting]
    lines = [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    named = [column.title for column in fitting]
    at = named.index("STATE") if "STATE" in named else None
    if at is None:
        return "\n".join(lines)
    start = sum(widths[:at]) + len(_GAP) * at
    colour = [
        line[:start] + colored(state, line[start : start + widths[at]]) + line[start + widths[at] :]
        for line, state in zip(lines[1:], states, strict=True)
    ]
    return "\n".join([lines[0], *colour])


def _fitted(columns: list[Column], width: int | None) -> list[Column]:
    if width is None or _total(columns) <= width:
        return columns
    columns = [
        Column(c.title, c.keep, c.short if c.short is not None else c.cells) for c in columns
    ]
    while _total(columns) > width and any(column.keep for column in columns):
        first = min((column for column in columns if column.keep), key=lambda column: column.keep)
        columns.remove(first)
    over = _total(columns) - width
    if over <= 0:
        return columns
    widest = max(columns, key=lambda column: column.width)
    room = max(_LEAST, widest.width - over)
    cells = [shortened(cell, room) for cell in widest.cells]
    at = columns.index(widest)
    columns[at] = Column(shortened(widest.title, room), widest.keep, cells)
    return columns


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)
