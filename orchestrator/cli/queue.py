"""The verbs about the queue: `explain` and `queue set`."""

from contextlib import suppress
from datetime import UTC, datetime

import click

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.groups import VerbGroup
from orchestrator.cli.output import Output, output_option
from orchestrator.client.describe import child_text, duration_text
from orchestrator.client.limits import LimitsNow, limits_now
from orchestrator.client.status import job_status
from orchestrator.client.surroundings import Start, surroundings
from orchestrator.counts import counted
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.limits import GPU_HOURS, SUBMITTERS, set_limit
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.queue import MAX_QUOTA, read_snapshot, set_quota
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import ENDED, GROUP_KINDS, JobState
from orchestrator.scheduling.explanation import Explanation, explain
from orchestrator.scheduling.matching import own_labels
from orchestrator.scheduling.waiting import NodeRoom
from orchestrator.store.names import check_name
from orchestrator.store.objects import ObjectStore

_SHOWN_NODES = 8


@click.command("explain")
@click.argument("job", cls=JobArgument)
@output_option
def explain_command(job: str, output: Output) -> None:
    """Say what a job asks for, what is free, who is ahead, and when it starts."""
    store = surroundings(output.say).store
    job_id = find_job_id(store, job)
    record = RecordStore(store).read(job_id).record
    if record.state not in ENDED:
        _say_if_nobody_acts(store, output)
    if record.kind in GROUP_KINDS:
        _explain_group(store, job_id, output)
        return
    if record.state is not JobState.QUEUED:
        text = f"{job_id} does not wait: it is {record.state}. {record.message}".rstrip()
        output.result({"job_id": job_id, "state": record.state, "verdict": None}, text)
        return
    snapshot, now = read_snapshot(store), store.now()
    if job_id not in {job.job_id for job in snapshot.queue}:
        text = f"{job_id} is new: the orchestrator looks at it within seconds"
        output.result({"job_id": job_id, "state": record.state, "verdict": None}, text)
        return
    explanation = explain(snapshot, job_id, now.timestamp())
    output.result(explanation, _describe(explanation, now))


def _say_if_nobody_acts(store: ObjectStore, output: Output) -> None:
    lease = read_lease(store)
    if lease is not None and not lease.is_fresh:
        output.say(
            f"no orchestrator has acted since {lease.renewed_at:%Y-%m-%d %H:%M:%S}, and nothing "
            "starts without one: `ddpmctl orchestrator ensure` starts it"
        )


def _explain_group(store: ObjectStore, job_id: str, output: Output) -> None:
    """Say of each child that has not ended what it waits for, or how far it is."""
    status, now = job_status(store, job_id), store.now()
    lines = [f"{job_id} is {status.state}. {status.message}".rstrip()]
    children = []
    for child in status.children:
        if child.state in ENDED:
            continue
        explanation: Explanation | None = None
        text = child_text(child)
        if child.state is JobState.QUEUED:
            with suppress(JobNotFoundError):  # it started, or was just put into the queue
                explanation = explain(read_snapshot(store), child.job_id, now.timestamp())
                text = f"{child.step}  {explanation.verdict}: {explanation.reason}"
        children.append({**vars(child), "explanation": explanation})
        lines.append(f"  {text}")
    told_of = ("job_id", "kind", "state", "reason", "message")
    shown = {key: getattr(status, key) for key in told_of}
    output.result({**shown, "children": children}, "\n".join(lines))


def _describe(explanation: Explanation, now: datetime) -> str:
    lines = [
        f"{explanation.job_id}  {explanation.verdict}: {explanation.reason}",
        f"  asks for   {explanation.asks_for}",
    ]
    lines.append(f"  position   {explanation.position}")
    if explanation.ahead:
        lines.append(f"  ahead      {', '.join(explanation.ahead[:5])}")
    for holder in explanation.holders[:5]:
        ends = f", ends in {_until(holder.expected_end_at, now)}" if holder.expected_end_at else ""
        held = f"{counted(holder.cpus, 'CPU')}, {counted(holder.gpus, 'GPU')}"
        lines.append(f"  held by    {holder.job_id}: {held}{ends}")
    lines += [f"  node       {_node_text(node)}" for node in explanation.free[:_SHOWN_NODES]]
    lines += [f"  avoids     {node[:12]}, which broke its attempts" for node in explanation.avoids]
    lines += [
        f"  may use    {node[:12]}, though it broke its attempts: it fits in no other way"
        for node in explanation.uses_avoided
    ]
    if explanation.estimated_start_at is not None:
        lines.append(f"  starts in  about {_until(explanation.estimated_start_at, now)}")
    return "\n".join(lines)


def _node_text(node: NodeRoom) -> str:
    labels = own_labels(node.labels)
    about = f" ({', '.join([node.accelerator, *labels])})" if node.accelerator else ""
    if labels and not node.accelerator:
        about = f" ({', '.join(labels)})"
    fits = f"room for {counted(node.num_workers, 'worker')}"
    fits = f"not for it: {node.unsuited}" if node.unsuited else fits
    free = f"{counted(node.free_cpus, 'CPU')} and {counted(node.free_gpus, 'GPU')} free"
    return f"{node.node_id[:12]}{about}: {free}, {fits}"


def _until(at: float, now: datetime) -> str:
    return duration_text(max(0.0, (datetime.fromtimestamp(at, UTC) - now).total_seconds()))


@click.group("queue", cls=VerbGroup)
def queue_command() -> None:
    """Limits of queues and submitters."""


@queue_command.command("set")
@click.argument("name")
@click.option("--gpus", type=float, help="GPUs its jobs may hold at once; -1: any.")
@click.option(
    "--gpu-hours", type=float, help="GPU-hours its jobs may use in a calendar month, UTC; -1: any."
)
@output_option
def set_command(name: str, gpus: float | None, gpu_hours: float | None, output: Output) -> None:
    """Set a queue's limits. Jobs name their queue themselves: an agreement, not a wall.

    Once a queue has used its GPU-hours, its jobs with GPUs save their work and wait for the next
    month.
    """
    check_name("queue", name)
    if gpus is None and gpu_hours is None:
        raise BadInputError("give --gpus, --gpu-hours or both")
    if gpus is not None and gpus != -1 and not 0 <= gpus <= MAX_QUOTA:
        raise BadInputError(
            f"--gpus must be from 0 to {MAX_QUOTA:,}, or -1 for no limit, not {gpus:g}"
        )
    store = surroundings(output.say, Start.FRESH).store
    if gpus is not None:
        set_quota(store, name, None if gpus == -1 else gpus)
    if gpu_hours is not None:
        set_limit(store, GPU_HOURS, name, None if gpu_hours == -1 else gpu_hours)
    _show(store, output)


@queue_command.command("limit")
@click.argument("submitter")
@click.option("--gpus", type=float, required=True, help="GPUs his jobs may hold at once; -1: any.")
@output_option
def limit_command(submitter: str, gpus: float, output: Output) -> None:
    r"""Limit what one submitter's jobs may hold at once, in all queues together.

    Jobs say themselves who submitted them (DDPMCTL_USER, or the name you log in with): an
    agreement, not a wall. '*' is each submitter who has no limit of his own.

    \b
    Examples:
      ddpmctl queue limit '*' --gpus 8
      ddpmctl queue limit alice --gpus 16
    """
    store = surroundings(output.say, Start.FRESH).store
    set_limit(store, SUBMITTERS, submitter, None if gpus == -1 else gpus)
    _show(store, output)


@queue_command.command("show")
@output_option
def show_command(output: Output) -> None:
    """Show the limits of queues and submitters, and what of a month's GPU-hours is used."""
    _show(surroundings(output.say).store, output)


def _show(store: ObjectStore, output: Output) -> None:
    limits = limits_now(store)
    output.result(limits, _describe_limits(limits))


def _describe_limits(limits: LimitsNow) -> str:
    lines = [f"{name}: {counted(gpus, 'GPU')}" for name, gpus in sorted(limits.quotas.items())]
    lines += [
        f"{name}: {limits.used.get(name, 0.0):.1f} of {hours:g} GPU-hours used in {limits.month}"
        for name, hours in sorted(limits.gpu_hours.items())
    ]
    lines += [
        f"submitter {name}: {counted(gpus, 'GPU')}"
        for name, gpus in sorted(limits.submitters.items())
    ]
    return "\n".join(lines) or "no queue has a limit"
