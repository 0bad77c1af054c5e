"""The verb `list`: which jobs are shown, and how they fit the terminal."""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from orchestrator.cli.output import Output, output_forms
from orchestrator.cli.terminal import (
    Column,
    color_option,
    progress_column,
    table,
    width_of_terminal,
)
from orchestrator.client.describe import age_s, duration_text, mark_of, state_text
from orchestrator.client.owner import user_name
from orchestrator.client.status import ListedJob, list_jobs
from orchestrator.client.surroundings import surroundings
from orchestrator.lifecycle.state import GROUP_KINDS, JobState

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


@dataclass(frozen=True)
class Wanted:
    """Which jobs are shown; what is empty or None does not matter.

    Attributes:
        states: In one of these.
        kinds: Of one of these.
        queue: In that queue.
        name: With a name or an id of that pattern.
        since: That changed since then.
        owner: That this user submitted.
    """

    states: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    queue: str | None = None
    name: str | None = None
    since: datetime | None = None
    owner: str | None = None

    def takes(self, job: ListedJob) -> bool:
        """Tell whether a job is shown."""
        return (
            (not self.states or str(job.state) in self.states)
            and (not self.kinds or job.kind in self.kinds)
            and self.queue in (None, job.queue)
            and (self.name is None or matches(job, self.name))
            and (self.since is None or job.changed_at >= self.since)
            and self.owner in (None, job.owner)
        )

    @property
    def is_all(self) -> bool:
        """Whether every job is shown."""
        return self == Wanted()


def matches(job: ListedJob, pattern: str) -> bool:
    """Tell whether a job's name or id is of a pattern, as `digits-*`."""
    return any(fnmatch.fnmatchcase(text, pattern) for text in (job.name, job.job_id))


class Duration(click.ParamType[timedelta]):
    """A duration as 30s, 15m, 2h, 7d or 2w."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Return the duration that a text means."""
        if isinstance(value, timedelta):
            return value
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no duration; write it as 30s, 15m, 2h or 7d", param, ctx)
        return timedelta(seconds=float(match[1]) * _UNITS_S[match[2]])


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Also what the index no longer holds.")
@click.option("--state", multiple=True, type=click.Choice([*JobState], case_sensitive=False))
@click.option("--kind", multiple=True, help="train, sample, pipeline, sweep, ...")
@click.option("--queue")
@click.option("--name", metavar="PATTERN", help="Of the name or the id, as 'digits-*'.")
@click.option("--since", type=Duration(), help="Changed within this time, as 2h or 7d.")
@click.option("--mine", is_flag=True, help="Only what you submitted.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@color_option
@output_forms("wide", "yaml", "name")
def list_command(
    everything: bool,
    state: tuple[JobState, ...],
    kind: tuple[str, ...],
    queue: str | None,
    name: str | None,
    since: timedelta | None,
    mine: bool,
    limit: int | None,
    output: Output,
) -> None:
    r"""Show the jobs: those that live, then the ended ones, the newest first.

    \b
    Examples:
      ddpmctl list --state RUNNING --state QUEUED
      ddpmctl list --name 'digits-*' --since 7d -o wide
      ddpmctl list --kind sample --limit 5 -o name
    """
    wanted = Wanted(
        frozenset(map(str, state)),
        frozenset(kind),
        queue,
        name,
        datetime.now(UTC) - since if since else None,
        user_name() if mine else None,
    )
    there = list_jobs(surroundings(output.say).store, everything=everything)
    jobs = [job for job in there if wanted.takes(job)][:limit]
    if output.form == "name":
        output.text("\n".join(job.job_id for job in jobs) or None)
        return
    shows_all = everything or not wanted.is_all
    text = job_table(jobs, shows_all, output.form == "wide") if jobs else none_of(there, wanted)
    output.result(jobs, text)


def none_of(there: Sequence[ListedJob], wanted: Wanted) -> str:
    """Say that no job matches, and what there is where no job has the kind or the queue."""
    asked = {"kind": wanted.kinds, "queue": {wanted.queue} if wanted.queue else set()}
    for what, names in asked.items():
        known = {getattr(job, what) for job in there}
        if names and known and not names & known:
            return f"no such jobs; there are jobs of {what} {', '.join(sorted(known))}"
    return "no such jobs" if not wanted.is_all else "no jobs"


def job_table(jobs: Sequence[ListedJob], everything: bool = False, wide: bool = False) -> str:
    """Return the jobs as columns that fit the terminal, a group's children below it.

    Args:
        jobs: In the order of the list.
        everything: Also the children of groups that have ended; their group sums them up.
        wide: More columns, whatever the width of the terminal.
    """
    shown = list(_nested(jobs, everything))
    columns = [
        Column("JOB", 0, [f"{indent}{job.job_id}" for indent, job in shown]),
        Column("KIND", 2, [job.kind for _, job in shown]),
        Column(
            "STATE",
            0,
            [state_text(job) for _, job in shown],
            [f"{job.state}{mark_of(job)}" for _, job in shown],
        ),
        Column("TRY", 1, [str(job.attempt) for _, job in shown]),
        progress_column([job for _, job in shown], 4),
        Column("AGE", 3, [duration_text(age_s(job.submitted_at)) for _, job in shown]),
    ]
    if wide:
        columns += [
            Column("QUEUE", 1, [job.queue for _, job in shown]),
            Column("PRIORITY", 1, [str(job.priority) for _, job in shown]),
            Column("OWNER", 1, [job.owner for _, job in shown]),
            Column("MESSAGE", 1, [job.message for _, job in shown]),
        ]
    states = [job.state for _, job in shown]
    text = table(columns, states, None if wide else width_of_terminal())
    hidden = len(jobs) - len(shown)
    return f"{text}\nand {hidden} that others made: `ddpmctl list --all`" if hidden else text


def _nested(jobs: Sequence[ListedJob], everything: bool) -> Iterator[tuple[str, ListedJob]]:
    """Yield (indent, job), children right after the group that they belong to."""
    shown = {job.job_id for job in jobs}
    children: dict[str, list[ListedJob]] = {}
    for job in jobs:
        children.setdefault(job.parent or "", []).append(job)
    for job in jobs:
        if job.parent not in shown:
            yield from _with_children(job, children, everything, "")


def _with_children(
    job: ListedJob, children: dict[str, list[ListedJob]], everything: bool, indent: str
) -> Iterator[tuple[str, ListedJob]]:
    yield indent, job
    of_job = sorted(children.get(job.job_id, []), key=lambda one: (one.submitted_at, one.job_id))
    # The ended evaluations of a training stand in its own curve.
    shows_all = everything or (job.kind in GROUP_KINDS and not job.state.has_ended)
    for child in of_job:
        if shows_all or not child.state.has_ended:
            yield from _with_children(child, children, everything, f"{indent}  ")
