"""Jobs as a program sees them: handles of one job, and tables of many."""

import asyncio
import html
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, overload

from orchestrator.api.samples import Samples
from orchestrator.client.asking import ask_and_wait
from orchestrator.client.describe import progress_text, state_text
from orchestrator.client.ensure import Keeper, ensure_running
from orchestrator.client.metrics import read_metrics
from orchestrator.client.status import (
    POLL_EVERY_S,
    JobStatus,
    ListedJob,
    follow,
    job_status,
    request,
)
from orchestrator.client.surroundings import Say, Surroundings
from orchestrator.errors import StoreUnavailableError
from orchestrator.jobs.inbox import DEFAULT_GRACE_S, Verb
from orchestrator.jobs.logs import LogCursor, LogLine, LogReader
from orchestrator.jobs.records import Event, RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.store.keys import JobPaths

if TYPE_CHECKING:
    from pandas import DataFrame


class JobHandle:
    """One job in the store; `await job` waits for its end, as `job.wait()` does.

    Attributes:
        id: Its id.
    """

    def __init__(self, around: Surroundings, job_id: str, say: Say) -> None:
        self.id = job_id
        self._around = around
        self._say = say

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def status(self) -> JobStatus:
        """Return what it is now."""
        return job_status(self._around.store, self.id)

    def spec(self) -> Job | GroupJob:
        """Return what was asked for, with every default."""
        return read_submission(RecordStore(self._around.store), self.id)

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Wait until it has ended and return its last status; its `state` says how it ended.

        Args:
            timeout_s: The longest to wait; None for any.

        Raises:
            TimeoutError: It has not ended by then; it goes on.
        """
        ensure_running(self._around, self._say)
        keeper = Keeper(self._around.store, self._say)
        last: JobStatus | None = None
        for status in follow(self._around.store, self.id, timeout_s):
            last = status
            keeper.look()
        return self._ended(last, timeout_s)

    async def wait_async(self, timeout_s: float | None = None) -> JobStatus:
        """Wait as `wait` does, while other tasks of the event loop go on."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        await asyncio.to_thread(ensure_running, self._around, self._say)
        keeper = Keeper(self._around.store, self._say)
        while True:
            last = await asyncio.to_thread(self._status_or_none)
            is_late = deadline is not None and time.monotonic() >= deadline
            if is_late or (last is not None and last.state.has_ended):
                return self._ended(last, timeout_s)
            await asyncio.to_thread(keeper.look)
            await asyncio.sleep(POLL_EVERY_S)

    def __await__(self) -> Generator[Any, None, JobStatus]:
        return self.wait_async().__await__()

    def _status_or_none(self) -> JobStatus | None:
        """Return the status; None while the store does not answer, since the job goes on."""
        try:
            return self.status()
        except StoreUnavailableError:
            return None

    def _ended(self, last: JobStatus | None, timeout_s: float | None) -> JobStatus:
        if last is not None and last.state.has_ended:
            return last
        message = f"is {last.state}" if last is not None else "is in a store that does not answer"
        raise TimeoutError(f"job {self.id} {message} after {timeout_s:g} s; it goes on")

    def cancel(self, grace_s: float = DEFAULT_GRACE_S) -> JobStatus:
        """End it, and return when its processes are really gone; one that has ended stays so.

        Args:
            grace_s: Time to save its work in.
        """
        if self.status().state.has_ended:
            return self.status()
        request(self._around.store, self.id, Verb.CANCEL, grace_s)
        return self.wait()

    def retry(self) -> JobStatus:
        """Have a failed or cancelled job queued again; it goes on from what it has committed.

        Raises:
            OrchestratorError: Nobody reads the request; it stays in the store.
        """
        ask_and_wait(self._around, self.id, Verb.RETRY, self._say)
        return self.status()

    def events(self) -> list[Event]:
        """Return what happened to it."""
        return list(RecordStore(self._around.store).events(self.id))

    def logs(self, rank: int | None = None) -> list[LogLine]:
        """Return what its processes wrote, in the order in which it came; of one rank, if given."""
        reader = LogReader(self._around.store, JobPaths(self.id), rank=rank)
        return reader.poll(LogCursor(), at_end=True)[0]

    def metrics(self) -> "DataFrame":
        """Return what it measured: a row for each step, a column for each metric.

        Steps are those of a training; of a fleet, seconds since its job was submitted. What was not
        measured at a step is NaN there.
        """
        import pandas as pd

        found = read_metrics(self._around.store, self.id)
        columns = {name: pd.Series(points, dtype=float) for name, points in found.items()}
        return pd.DataFrame(columns).sort_index().rename_axis("step")

    def samples(self) -> Samples:
        """Return the set that it draws. Raises: BadInputError (it draws none)."""
        return Samples(self._around.store, self.id)

    def _repr_html_(self) -> str:
        """Return its state as a table, for notebooks."""
        return jobs_html([self.status()])


class JobTable(Sequence[ListedJob]):
    """Jobs as `ddpmctl list` shows them; a notebook shows a table."""

    def __init__(self, jobs: Iterable[ListedJob]) -> None:
        self._jobs = tuple(jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, index: int) -> ListedJob: ...

    @overload
    def __getitem__(self, index: slice) -> "JobTable": ...

    def __getitem__(self, index: int | slice) -> "ListedJob | JobTable":
        """Return a job, or some of them."""
        found = self._jobs[index]
        return found if isinstance(found, ListedJob) else JobTable(found)

    def __repr__(self) -> str:
        return f"JobTable({[job.job_id for job in self]})"

    def frame(self) -> "DataFrame":
        """Return them as a pandas table, a row for each job."""
        import pandas as pd

        return pd.DataFrame([asdict(job) for job in self])

    def _repr_html_(self) -> str:
        """Return them as a table, for notebooks."""
        return jobs_html(self._jobs)


def jobs_html(jobs: Iterable[ListedJob]) -> str:
    """Return jobs as an HTML table."""
    heads = ("job", "kind", "state", "attempt", "progress", "message")
    rows = [
        (job.job_id, job.kind, state_text(job), job.attempt, progress_text(job), job.message)
        for job in jobs
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
