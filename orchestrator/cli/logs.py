"""The verb `logs`."""

import time
from collections.abc import Iterator

import click

from orchestrator.cli.output import Output, output_option
from orchestrator.client.status import POLL_EVERY_S
from orchestrator.client.surroundings import surroundings
from orchestrator.errors import StoreError
from orchestrator.jobs.logs import LogCursor, LogLine, LogReader
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

_PAUSE_AFTER_ERROR_S = 2.0


@click.command("logs")
@click.argument("job")
@click.option("-f", "--follow", "stay", is_flag=True, help="Go on until the job has ended.")
@click.option("--rank", type=click.IntRange(min=0), help="Only processes of this rank.")
@click.option("--attempt", type=click.IntRange(min=1), help="Only this attempt.")
@output_option
def logs_command(
    job: str, stay: bool, rank: int | None, attempt: int | None, output: Output
) -> None:
    """Show what a job's processes wrote, from the store, during and after.

    Only the job's own end ends `-f`, never a lost connection.
    """
    store = surroundings(output.say).store
    job_id = find_job_id(store, job)
    read_spec(RecordStore(store), job_id)  # a group has no logs of its own and says whose to read
    reader = LogReader(store, JobPaths(job_id), rank=rank, attempt=attempt)
    for line in _lines(output, store, job_id, reader, stay):
        stream = line.stream
        value = {
            "attempt": stream.attempt,
            "role": stream.role,
            "rank": stream.rank,
            "text": line.text,
        }
        output.line(value, f"[{stream.attempt} {stream.role}-{stream.rank}] {line.text}")


def _lines(
    output: Output, store: ObjectStore, job_id: str, reader: LogReader, stay: bool
) -> Iterator[LogLine]:
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
        yield from lines
        if not stay or (ended and not lines):
            return
        time.sleep(POLL_EVERY_S)
