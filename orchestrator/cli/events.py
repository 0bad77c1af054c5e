"""The verb `events`: what happened to one job, or to all of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.listing import Duration
from orchestrator.cli.output import Output, output_option
from orchestrator.cli.terminal import color_option, colored
from orchestrator.client.describe import describe_event
from orchestrator.client.happenings import Happening, Happenings
from orchestrator.client.status import POLL_EVERY_S
from orchestrator.client.surroundings import surroundings
from orchestrator.errors import StoreError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import Event, RecordStore
from orchestrator.store.objects import ObjectStore

_PAUSE_AFTER_ERROR_S = 2.0
_SINCE = timedelta(days=1)

_Told = TypeVar("_Told", Event, Happening)


@click.command("events")
@click.argument("job", cls=JobArgument, required=False)
@click.option("-f", "--follow", "stay", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--since", type=Duration(), help="Only within this time, as 2h; without JOB a day is taken."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the last ones.")
@color_option
@output_option
def events_command(
    job: str | None, stay: bool, since: timedelta | None, limit: int | None, output: Output
) -> None:
    r"""Show what happened to a job; without JOB to all, by time.

    With -f it goes on, and JSON is one object a line. Of all jobs it goes on until Ctrl-C.

    \b
    Examples:
      ddpmctl events digits
      ddpmctl events --since 2h
      ddpmctl events -f --limit 5
    """
    store = surroundings(output.say).store
    if job is None:
        _of_all(output, store, stay, datetime.now(UTC) - (since or _SINCE), limit)
        return
    job_id = find_job_id(store, job)
    begin = datetime.now(UTC) - since if since else None
    _of_one(output, store, job_id, stay, _Wanted(begin, limit))


class _Wanted:
    """Which events of a first look are shown."""

    def __init__(self, since: datetime | None, limit: int | None) -> None:
        self._since = since
        self._limit = limit

    def of(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return those that are shown."""
        shown = [e for e in events if self._since is None or e.at >= self._since]
        return shown[-self._limit :] if self._limit else shown


def _of_one(output: Output, store: ObjectStore, job_id: str, stay: bool, wanted: _Wanted) -> None:
    records = RecordStore(store)
    if output.as_json and not stay:
        output.result(wanted.of(records.events(job_id)))
        return
    seen = 0

    def look() -> tuple[Sequence[Event], bool]:
        nonlocal seen
        ended = records.read(job_id).record.state.has_ended
        new = records.events(job_id, after=seen)
        shown = wanted.of(new) if not seen else new
        seen = new[-1].number if new else seen
        return shown, ended

    for event in _looks(output, look, stay):
        output.line(event, _line(event))


def _of_all(
    output: Output, store: ObjectStore, stay: bool, since: datetime, limit: int | None
) -> None:
    happenings = Happenings(store, since)
    first = happenings.look()
    first = first[-limit:] if limit else first
    if output.as_json and not stay:
        output.result([one.as_json() for one in first])
        return
    if not first and not stay:
        output.hint("  nothing happened in that time; `--since 7d` looks further back")
    for one in first:
        output.line(one.as_json(), _line(one.event, one.job_id))
    if stay:
        for one in _looks(output, lambda: (happenings.look(), False), stay):
            output.line(one.as_json(), _line(one.event, one.job_id))


def _looks(
    output: Output, look: Callable[[], tuple[Sequence[_Told], bool]], stay: bool
) -> Iterator[_Told]:
    """Yield what each look finds; a store that does not answer is waited for where one stays."""
    while True:
        try:
            events, ended = look()
        except StoreError as error:
            if not stay:
                raise
            output.say(f"waiting: {error}")
            time.sleep(_PAUSE_AFTER_ERROR_S)
            continue
        yield from events
        if not stay or ended:
            return
        time.sleep(POLL_EVERY_S)


def _line(event: Event, job_id: str = "") -> str:
    text = describe_event(event)
    if event.state:
        text = text.replace(str(event.state), colored(event.state, str(event.state)), 1)
    head, _, rest = text.partition(" [")
    return f"{head} {job_id} [{rest}" if job_id else text
