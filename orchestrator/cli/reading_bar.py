"""How far a source is read while it is taken into the store: a bar on a terminal, else lines."""

import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress

SHOW_EVERY_S = 0.2
PLAIN_EVERY_S = 10.0


class ReadingBar:
    """Shows how many images of a source are read.

    Args:
        silent: Show no progress: programs read what is said.
    """

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._bar: Progress | None = None
        self._task: Any = None
        self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def show(self, done: int, total: int) -> None:
        """Show that so many images of so many are read; called for every one of them."""
        now = time.monotonic()
        is_terminal = sys.stderr.isatty()
        if self._silent or now - self._shown_at < (SHOW_EVERY_S if is_terminal else PLAIN_EVERY_S):
            return
        self._shown_at = now
        if not is_terminal:
            click.echo(f"{done:,} of {total:,} images are read", err=True)
            return
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
            self._task = self._bar.add_task("images", total=total)
        self._bar.update(self._task, completed=done, total=total)

    def say(self, line: str) -> None:
        """Write a line, which ends the bar of its source."""
        self._end()
        click.echo(line, err=True)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _new_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(bar_width=40), MofNCompleteColumn(), "images", TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
