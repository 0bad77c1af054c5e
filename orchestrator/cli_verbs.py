"""What the verbs do: open the store, make one call, hand the answer to the output."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.cli_show import describe_event, describe_job, describe_plan, job_table
from orchestrator.ensure import ensure_orchestrator
from orchestrator.environment import Surroundings, surroundings
from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.job_lookup import find_job_id
from orchestrator.log_reader import LogCursor, LogLine, LogReader
from orchestrator.paths import JobPaths
from orchestrator.progress_bar import ProgressView
from orchestrator.records import RecordStore, event_as_json
from orchestrator.spec import Job, TrainJob, load_spec
from orchestrator.state import JobState
from orchestrator.submit import follow as follow_job
from orchestrator.submit import job_status, list_jobs, request, submit_job, with_dataset

CANCEL_MARGIN_S = 60.0
REQUEST_TIMEOUT_S = 60.0
_POLL_EVERY_S = 0.5


class Output(Protocol):
    """Where words go."""

    as_json: bool

    def say(self, line: str) -> None:
        """Tell a person what happens."""

    def result(self, value: Any, text: str | None = None) -> None:
        """Give the result."""


def submit_verb(
    output: Output,
    file: Path,
    overrides: Sequence[str],
    job_id: str | None,
    *,
    dry_run: bool,
) -> dict[str, Any] | None:
    """Check, plan and queue a job; return its status, or None after a dry run."""
    spec = load_spec(file, overrides)
    around = surroundings(output.say, start=not dry_run)
    spec = with_dataset(spec, file.parent, around.store)
    if dry_run:
        plan = _plan(spec, around)
        output.result(plan, describe_plan(plan))
        return None
    submission = submit_job(around.store, spec, job_id)
    ensure_orchestrator(around.store, output.say)
    status = job_status(around.store, submission.job_id)
    told = "queued" if submission.is_new else "exists already, with the same spec"
    output.result(status, f"{submission.job_id} {told}\n  follow it: ddpmctl wait {spec.name}")
    return status


def _plan(spec: Job, around: Surroundings) -> dict[str, Any]:
    from orchestrator.datasets import describe
    from orchestrator.plan import plan_sampling, plan_training

    if isinstance(spec, TrainJob):
        return plan_training(spec, describe(around.store, str(spec.dataset.sha256)))
    return plan_sampling(spec)


def list_verb(output: Output, *, everything: bool) -> None:
    """Show the jobs."""
    jobs = list_jobs(surroundings(output.say).store, everything=everything)
    output.result(jobs, job_table(jobs) if jobs else "no jobs")


def status_verb(output: Output, job: str) -> None:
    """Show one job in full."""
    status = job_status(surroundings(output.say).store, job)
    output.result(status, describe_job(status))


def events_verb(output: Output, job: str, *, follow: bool) -> None:
    """Show a job's history; JSON is one object a line where it follows."""
    store = surroundings(output.say).store
    job_id, records = find_job_id(store, job), RecordStore(store)
    if output.as_json and not follow:
        output.result([event_as_json(event) for event in records.events(job_id)])
        return
    seen = 0
    while True:
        ended = records.read(job_id).record.state.has_ended
        for event in records.events(job_id, after=seen):
            seen = event.number
            _line(output, event_as_json(event), describe_event(event))
        if not follow or ended:
            return
        time.sleep(_POLL_EVERY_S)


def _line(output: Output, value: Mapping[str, Any], text: str) -> None:
    import click

    click.echo(json.dumps(value) if output.as_json else text)


def logs_verb(
    output: Output, job: str, *, follow: bool, rank: int | None, attempt: int | None
) -> None:
    """Print a job's log lines; only the job's own end is the end, never a lost connection."""
    store = surroundings(output.say).store
    job_id = find_job_id(store, job)
    records, cursor = RecordStore(store), LogCursor()
    reader = LogReader(store, JobPaths(job_id), rank=rank, attempt=attempt)
    while True:
        try:
            ended = records.read(job_id).record.state.has_ended
            lines, cursor = reader.poll(cursor, at_end=ended)
        except StoreError as error:
            if not follow:
                raise
            output.say(f"waiting: {error}")
            time.sleep(2.0)
            continue
        for line in lines:
            _line(output, _log_value(line), f"{_origin(line)} {line.text}")
        if not follow or (ended and not lines):
            return
        time.sleep(_POLL_EVERY_S)


def _origin(line: LogLine) -> str:
    stream = line.stream
    return f"[{stream.attempt} {stream.role}-{stream.rank}]"


def _log_value(line: LogLine) -> dict[str, Any]:
    stream = line.stream
    return {
        "attempt": stream.attempt,
        "role": stream.role,
        "rank": stream.rank,
        "text": line.text,
    }


def wait_verb(output: Output, job: str, timeout_s: float | None) -> dict[str, Any]:
    """Wait for a job's end, showing its progress; return its last status."""
    around = surroundings(output.say)
    job_id = find_job_id(around.store, job)
    ensure_orchestrator(around.store, output.say)
    last: dict[str, Any] = {}
    with ProgressView(output.as_json) as view:
        for last in follow_job(around.store, job_id, timeout_s):
            view.show(last)
    output.result(last, describe_job(last))
    return last


def cancel_verb(output: Output, job: str, grace_s: float) -> dict[str, Any]:
    """Have a job cancelled and wait until its processes are gone; return its last status."""
    around = surroundings(output.say)
    job_id = find_job_id(around.store, job)
    ensure_orchestrator(around.store, output.say)
    before = job_status(around.store, job_id)
    if JobState(before["state"]).has_ended:
        output.result(before, f"{job_id} has ended already: {before['state']}")
        return before
    request(around.store, job_id, "cancel", {"grace_s": grace_s})
    *_, last = follow_job(around.store, job_id, grace_s + CANCEL_MARGIN_S)
    if last["state"] == JobState.CANCELLED:
        output.result(last, f"{job_id} is cancelled; its processes are gone")
    else:
        output.result(last, f"{job_id} is {last['state']}: not cancelled in time")
    return last


def retry_verb(output: Output, job: str) -> dict[str, Any]:
    """Have a failed or cancelled job queued again; return its status."""
    around = surroundings(output.say)
    job_id = find_job_id(around.store, job)
    state = JobState(job_status(around.store, job_id)["state"])
    if state not in (JobState.FAILED, JobState.CANCELLED):
        raise OrchestratorError(
            f"job {job_id} is {state}; only FAILED and CANCELLED jobs can be retried"
        )
    ensure_orchestrator(around.store, output.say)
    key = request(around.store, job_id, "retry")
    _until(lambda: not around.store.exists(key))
    status = job_status(around.store, job_id)
    output.result(status, f"{job_id} is {status['state']}")
    return status


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            raise OrchestratorError(
                f"the orchestrator did not read the request in {REQUEST_TIMEOUT_S:g} s; "
                "see `ddpmctl doctor`"
            )
        time.sleep(_POLL_EVERY_S)


def ensure_verb(output: Output) -> None:
    """Start the orchestrator unless it runs."""
    around = surroundings(output.say)
    started = ensure_orchestrator(around.store, output.say)
    output.result({"started": started}, "started" if started else "it runs already")


def doctor_verb(output: Output) -> bool:
    """Probe store, Ray and MLflow; tell whether all is well."""
    from dataclasses import asdict

    from orchestrator.doctor import diagnose

    surroundings(output.say)
    findings = diagnose()
    lines = [
        f"{'ok  ' if one.ok else 'FAIL'} {one.part}: {one.check}: {one.detail}"
        + (f"\n     {one.remedy}" if one.remedy and not one.ok else "")
        for one in findings
    ]
    output.result([asdict(one) for one in findings], "\n".join(lines))
    return all(one.ok for one in findings)
