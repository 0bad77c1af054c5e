"""What `top` shows and what its keys do: pure, so that a test presses any of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.cli.terminal import Column, progress_column, shortened_to_end, table
from orchestrator.client.describe import duration_text, mark_of, state_text
from orchestrator.client.overview import Overview
from orchestrator.client.status import ListedJob
from orchestrator.counts import counted
from orchestrator.jobs.nodes import NodeEntry
from orchestrator.lifecycle.state import JobState

_SHOWN_NODES = 6
_KEYS_OF_LIST = "j k: move   enter: look into a job   a: all or live   q: quit"
_KEYS_OF_JOB = "j k: other job   esc: back   q: quit"
_AT_WORK = (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)


@dataclass(frozen=True)
class Board:
    """Where a user of `top` is.

    Attributes:
        selected: The job under the cursor; "" for the first.
        is_open: Whether that job is looked into.
        only_live: Whether ended jobs are left out.
        has_quit: Whether to end.
    """

    selected: str = ""
    is_open: bool = False
    only_live: bool = False
    has_quit: bool = False

    def jobs(self, overview: Overview) -> Sequence[ListedJob]:
        """Return the jobs that are shown."""
        return [j for j in overview.jobs if not (self.only_live and j.state.has_ended)]

    def index(self, overview: Overview) -> int:
        """Return which of them is under the cursor."""
        ids = [job.job_id for job in self.jobs(overview)]
        return ids.index(self.selected) if self.selected in ids else 0

    def job(self, overview: Overview) -> ListedJob | None:
        """Return the job under the cursor; None where there is none."""
        jobs = self.jobs(overview)
        return jobs[self.index(overview)] if jobs else None

    def pressed(self, key: str, overview: Overview) -> "Board":
        """Return where a key leads."""
        steps = {"up": -1, "down": 1, "page-up": -10, "page-down": 10}
        if key in steps:
            jobs = self.jobs(overview)
            if not jobs:
                return self
            at = min(max(0, self.index(overview) + steps[key]), len(jobs) - 1)
            return replace(self, selected=jobs[at].job_id)
        if key == "enter":
            job = self.job(overview)
            return replace(self, selected=job.job_id, is_open=True) if job else self
        if key == "a":
            return replace(self, only_live=not self.only_live)
        if key == "q" or (key == "back" and not self.is_open):
            return replace(self, has_quit=key == "q")
        return replace(self, is_open=False) if key == "back" else self


def frame(
    overview: Overview,
    board: Board,
    size: tuple[int, int],
    *,
    inside: Sequence[str] = (),
    trouble: str = "",
) -> list[str]:
    """Return the lines of the screen.

    Args:
        overview: What there is.
        board: Where the user is.
        size: Columns and lines of the terminal.
        inside: What is shown of the job that is looked into.
        trouble: Why the overview is an old one; "" if it is not.
    """
    width, height = size
    lines = _head(overview, width, trouble)
    if board.is_open:
        room = height - len(lines) - 2
        lines += [shortened_to_end(line, width) for line in inside[:room]]
    else:
        lines += [shortened_to_end(_node_line(n), width) for n in overview.nodes[:_SHOWN_NODES]]
        more = len(overview.nodes) - _SHOWN_NODES
        lines += [f"and {more} more nodes"] if more > 0 else []
        lines.append("")
        lines += _rows(overview, board, width, height - len(lines) - 2)
    keys = _KEYS_OF_JOB if board.is_open else _KEYS_OF_LIST
    return [*lines[: height - 2], "", shortened_to_end(keys, width)]


def _head(overview: Overview, width: int, trouble: str) -> list[str]:
    acts = "the orchestrator acts" if overview.is_acting else _silence(overview)
    at_work, waiting = overview.count(*_AT_WORK), overview.count(JobState.QUEUED)
    held = sum(node.cpus - node.free_cpus for node in overview.nodes)
    cpus = sum(node.cpus for node in overview.nodes)
    used = f"; {held:g} of {counted(cpus, 'CPU')} held" if overview.nodes else ""
    gpus = sum(node.gpus for node in overview.nodes)
    if gpus:
        used_gpus = sum(node.gpus - node.free_gpus for node in overview.nodes)
        used += f", {used_gpus:g} of {counted(gpus, 'GPU')}"
    lines = [
        f"{overview.at:%H:%M:%S}  {acts}",
        f"{at_work} at work, {waiting} waiting{used}",
        *([f"old: {trouble}"] if trouble else []),
    ]
    return [shortened_to_end(line, width) for line in lines]


def _silence(overview: Overview) -> str:
    if overview.acted_at is None:
        return "no orchestrator ever ran here"
    silent_s = (overview.at - overview.acted_at).total_seconds()
    return f"NO orchestrator for {duration_text(silent_s)}: `ddpmctl orchestrator ensure`"


def _node_line(node: NodeEntry) -> str:
    held = [f"{node.cpus - node.free_cpus:g}/{counted(node.cpus, 'CPU')}"]
    if node.gpus:
        gpu = f"{node.accelerator} GPU".lstrip()
        held.append(f"{node.gpus - node.free_gpus:g}/{counted(node.gpus, gpu)}")
    workers = ", ".join(f"{job} x{n}" if n > 1 else job for job, n in node.workers.items())
    return f"node {node.host or node.node_id[:8]}  {', '.join(held)}  {workers}"


def _rows(overview: Overview, board: Board, width: int, room: int) -> list[str]:
    jobs, at = board.jobs(overview), board.index(overview)
    if not jobs:
        return ["no jobs"]
    first = max(0, min(at - room // 2, len(jobs) - room + 1))
    shown = jobs[first : first + max(1, room - 1)]
    chosen = jobs[at].job_id
    columns = [
        Column(" ", 0, [">" if job.job_id == chosen else " " for job in shown]),
        Column("JOB", 0, [job.job_id for job in shown]),
        Column("KIND", 2, [job.kind for job in shown]),
        Column(
            "STATE",
            0,
            [state_text(job) for job in shown],
            [f"{job.state}{mark_of(job)}" for job in shown],
        ),
        progress_column(shown, 3),
        Column(
            "AGE",
            1,
            [duration_text((overview.at - job.submitted_at).total_seconds()) for job in shown],
        ),
    ]
    return table(columns, [job.state for job in shown], width).splitlines()
