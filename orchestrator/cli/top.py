"""The verb `top`: jobs, nodes and pace, again and again."""

import sys
import time
from contextlib import suppress
from dataclasses import asdict

import click

from orchestrator.cli.board import Board, frame
from orchestrator.cli.output import Output, output_option
from orchestrator.cli.screen import Screen, is_screen
from orchestrator.cli.terminal import color_option, width_of_terminal
from orchestrator.client.describe import describe_event, describe_job
from orchestrator.client.overview import Overview, read_overview
from orchestrator.client.status import job_status
from orchestrator.client.surroundings import surroundings
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.logs import LogReader
from orchestrator.jobs.records import RecordStore
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

_WIDTH_WITHOUT_TERMINAL = 100
_LINES_WITHOUT_TERMINAL = 1000
_EVENTS = 8
_LOG_LINES = 12


@click.command("top")
@click.option(
    "--every-s",
    type=click.FloatRange(min=0.2, max=3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="One look, as where there is no terminal.")
@color_option
@output_option
def top_command(every_s: float, once: bool, output: Output) -> None:
    r"""Show jobs, nodes and pace, again and again; it needs the store alone.

    Keys: j and k or the arrows move, enter looks into a job, a leaves the ended ones out, q ends.

    \b
    Examples:
      ddpmctl top
      ddpmctl top --once --color never
      ddpmctl top -o json
    """
    store = surroundings(output.say).store
    if once or output.as_json or not is_screen():
        overview = read_overview(store)
        size = (width_of_terminal() or _WIDTH_WITHOUT_TERMINAL, _LINES_WITHOUT_TERMINAL)
        lines = frame(overview, Board(), size)[:-2]  # no keys
        output.result(asdict(overview), "\n".join(line.rstrip() for line in lines))
        return
    color = click.get_current_context().color is not False
    with suppress(KeyboardInterrupt), Screen(color) as screen:
        _show(screen, store, every_s)


def _show(screen: Screen, store: ObjectStore, every_s: float) -> None:
    board, overview, trouble = Board(), read_overview(store), ""
    inside: list[str] = []
    looked_at = time.monotonic()
    while not board.has_quit:
        screen.draw(frame(overview, board, screen.size, inside=inside, trouble=trouble))
        key = screen.key(max(0.0, looked_at + every_s - time.monotonic()))
        before, board = board, board.pressed(key, overview) if key else board
        if key and board == before:
            continue
        try:
            if not key:
                looked_at = time.monotonic()
                overview, trouble = read_overview(store), ""
            inside = _inside(store, board, overview) if board.is_open else []
        except OrchestratorError as error:  # the jobs go on; the next look may be answered
            trouble = str(error)


def _inside(store: ObjectStore, board: Board, overview: Overview) -> list[str]:
    """Return what is shown of the job under the cursor: status, events, the end of its log."""
    job = board.job(overview)
    if job is None:
        return []
    lines = describe_job(job_status(store, job.job_id)).splitlines()
    events = RecordStore(store).events(job.job_id)[-_EVENTS:]
    lines += ["", *(describe_event(event) for event in events)]
    streams = LogReader(store, JobPaths(job.job_id), attempt=job.attempt or None).streams()
    if streams:
        last = streams[-1]
        lines += ["", f"the log of {last.role}-{last.rank} of attempt {last.attempt}:"]
        lines += LogReader(store, JobPaths(job.job_id)).tail(last, _LOG_LINES)
    return [_plain(line) for line in lines]


def _plain(line: str) -> str:
    """Return a line without what would move the cursor, in characters that the terminal knows."""
    text = click.unstyle(line.expandtabs(4))
    text = "".join(c if c.isprintable() else " " for c in text)
    known = sys.stdout.encoding or "ascii"
    return text.encode(known, errors="replace").decode(known)
