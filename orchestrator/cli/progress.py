"""A progress bar on a terminal, plain lines elsewhere, nothing at all for programs."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import click

from orchestrator.cli.output import Output
from orchestrator.client.describe import (
    data_wait_text,
    duration_text,
    fleet_text,
    progress_text,
    state_text,
)
from orchestrator.client.status import JobStatus
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import GROUP_KINDS, JobState

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_EVERY_S = 10.0
AT_WORK = (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)


class ProgressView:
    """Shows a job's status again and again.

    Args:
        silent: Show nothing.
    """

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._bar: Progress | None = None
        self._task: Any = None
        self._said = ""
        self._said_at = 0.0

    def __enter__(self) -> Self:
        if not self._silent and sys.stderr.isatty():
            self._bar = _new_bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=None, state="", progress="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, status: JobStatus) -> None:
        """Show a status."""
        if self._silent:
            return
        state, progress = _state_line(status), pace_line(status)
        if self._bar is not None:
            total, done = status.total or None, completed(status)
            self._bar.update(
                self._task, total=total, completed=done, state=state, progress=progress
            )
        else:
            self._say_plainly(state, progress)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif not self._silent:
            click.echo(line, err=True)

    def _say_plainly(self, state: str, progress: str) -> None:
        now = time.monotonic()
        if state == self._said and now - self._said_at < PLAIN_EVERY_S:
            return
        self._said, self._said_at = state, now
        click.echo(f"{state}  {progress}".rstrip(), err=True)


@contextmanager
def on_interrupt(output: Output, line: str) -> Iterator[None]:
    """Say what was done and holds although somebody ends the verb with Ctrl-C within.

    Args:
        output: Says nothing where a program reads JSON.
        line: A sentence with what to do next.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not output.as_json:
            output.say(line)
        raise


def going_on(job_id: str) -> str:
    """Return what is said of a job that is no longer waited for."""
    return f"{job_id} goes on: ddpmctl wait {job_id}"


def _new_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.fields[state]}"),
        BarColumn(bar_width=40),
        TextColumn("{task.fields[progress]}"),
        console=Console(stderr=True),
    )


def _state_line(status: JobStatus) -> str:
    line = f"{status.job_id} {state_text(status)}"
    is_telling = status.state is JobState.RUNNING and status.phase not in (None, Phase.RUNNING)
    return f"{line}, {status.phase}" if is_telling else line


def pace_line(status: JobStatus) -> str:
    """Return how far a job is, how fast, and the time left; of one in the queue, why it waits."""
    rate, total, done = status.rate_per_s or 0, status.total or 0, status.done
    if status.state is JobState.QUEUED:
        return status.message
    if status.kind in GROUP_KINDS:
        return _children_line(status)
    left = f", {duration_text((total - done) / rate)} left" if rate and total > done else ""
    parts = [progress_text(status) + left, data_wait_text(status)]
    if status.state is JobState.RUNNING and (fleet := fleet_text(status)):
        parts.append(fleet)
    return ", ".join(part for part in parts if part)


def completed(status: JobStatus) -> float:
    """Return how much of a job is done; of a group, with the parts of the jobs at work."""
    is_group = status.kind in GROUP_KINDS  # the evaluations of a training are no part of it
    live = [c for c in status.children if is_group and c.state in AT_WORK]
    return float(status.done) + sum(min(1.0, c.done / c.total) for c in live if c.total)


def _children_line(status: JobStatus) -> str:
    """Return how far a group is, with the pace of the child at work if there is but one."""
    live = [c for c in status.children if c.state in AT_WORK]
    if len(live) == 1:
        progress = progress_text(live[0]) or live[0].state
        return f"{progress_text(status)}; {live[0].step} {progress}"
    return f"{progress_text(status)}; {len(live)} at work" if live else progress_text(status)
