"""How jobs, plans and events look to a person."""

from collections.abc import Mapping
from datetime import UTC, datetime

from orchestrator.client.plan_forms import GroupPlan, Plan
from orchestrator.client.status import JobStatus, ListedJob
from orchestrator.counts import counted
from orchestrator.jobs.heartbeat import WorkerReport
from orchestrator.jobs.index_entry import IndexEntry
from orchestrator.jobs.progress import ChildEntry
from orchestrator.jobs.records import Event
from orchestrator.lifecycle.cost import Cost
from orchestrator.lifecycle.state import JobState

_LEAST_DATA_WAIT = 0.01
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def bytes_text(size: float) -> str:
    """Return a size with a unit: 1536 is "1.5 KiB"."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration: 3725 is "1h02m"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def progress_text(job: IndexEntry | ChildEntry) -> str:
    """Return how far a job is and what it is worth: "1200/2000 steps, 14.2/s, loss 0.0912"."""
    parts = [f"{job.done:g}"] if job.done else []
    if job.total:
        parts = [f"{job.done:.0f}/{job.total} {job.unit}"]
        parts += [f"{job.rate_per_s:.1f}/s"] if job.rate_per_s else []
    return ", ".join([*parts, *_score_texts(job.scores)])


def data_wait_text(status: JobStatus) -> str:
    """Return what of its time a training waits for images: "23% of the time waiting for data".

    It belongs behind the pace; "" without one, and for less than anybody need care about.
    """
    share = status.details.get("data_wait_share", 0.0)
    if not status.rate_per_s or share < _LEAST_DATA_WAIT:
        return ""
    return f"{share:.0%} of the time waiting for data"


def _score_texts(scores: Mapping[str, float]) -> list[str]:
    """Return what a job is worth: "loss 0.0912", "4.57 ± 0.05 bits/dim"."""
    texts = [f"loss {scores['loss']:.4f}"] if "loss" in scores else []
    if "bpd" in scores:
        error = f" ± {scores['bpd_se']:.2f}" if "bpd_se" in scores else ""
        texts.append(f"{scores['bpd']:.2f}{error} bits/dim")
    return texts + [_measured(name, scores) for name in scores if f"{name}_floor" in scores]


def _measured(name: str, scores: Mapping[str, float]) -> str:
    """Return a metric beside what real images get: "kid-pixels 0.0124 ± 0.0009 (floor 0.0002)"."""
    error = f" ± {scores[f'{name}_se']:.4f}" if f"{name}_se" in scores else ""
    return f"{name} {scores[name]:.4f}{error} (floor {scores[f'{name}_floor']:.4f})"


def money_text(amount: float, currency: str) -> str:
    """Return an amount with its currency: small ones keep three digits that count."""
    return f"{amount:,.2f} {currency}" if amount >= 1 or not amount else f"{amount:.3g} {currency}"


def cost_text(cost: Cost) -> str:
    """Return what a job cost: "12.40 EUR, 0.0124 EUR per 1,000 images"; or why nobody knows."""
    if cost.amount is None:
        missing = ", ".join(
            f"{name} ({cost.gpu_hours[name]:g} GPU-hours)" for name in cost.unpriced
        )
        return f"unknown: no price for {missing}"
    text = money_text(cost.amount, cost.currency)
    if cost.per_1000_images is not None:
        text += f", {money_text(cost.per_1000_images, cost.currency)} per 1,000 images"
    return text


def fleet_text(status: JobStatus) -> str:
    """Return what a fleet is at: "3 workers, 120/300 reverse steps in hand"; "" for no fleet."""
    details = status.details
    if "steps_in_hand" not in details:
        return ""
    parts = [counted(int(details["num_workers"]), "worker")]
    if details["steps_of_hand"]:  # an evaluation's shards have none
        parts.append(
            f"{details['steps_in_hand']:g}/{details['steps_of_hand']:g} reverse steps in hand"
        )
    return ", ".join(parts)


def state_text(job: ListedJob | ChildEntry) -> str:
    """Return the state, and since when it is unconfirmed if nobody can confirm it."""
    notes = [job.reason] if job.reason else []
    if isinstance(job, ListedJob):
        if job.stale:
            return f"{job.state}? unconfirmed since {job.confirmed_at:%Y-%m-%d %H:%M:%S}"
        if job.stalled and job.moved_at:
            notes.append(f"no progress since {job.moved_at:%H:%M:%S}")
        if job.has_trouble:
            notes.append("waits in the background")
        if job.position:
            notes.append(f"#{job.position} in line")
        notes += [job.outlook] if job.outlook else []
    return f"{job.state} ({', '.join(notes)})" if notes else str(job.state)


def mark_of(job: ListedJob) -> str:
    """Return "?" for a job that is unconfirmed or gets no further, "!" for one that waits."""
    return f"{'?' if job.stale or job.stalled else ''}{'!' if job.has_trouble else ''}"


def describe_job(status: JobStatus) -> str:
    """Return one job in full."""
    lines = [
        f"{status.job_id}  {state_text(status)}",
        f"  kind      {status.kind}, queue {status.queue}, priority {status.priority}",
        f"  attempt   {status.attempt}",
    ]
    lines += _cost_lines(status)
    lines += [f"  model     {text}" for text in _descent_lines(status)]
    if status.message:
        lines.append(f"  message   {status.message}")
    if progress := ", ".join(filter(None, (progress_text(status), data_wait_text(status)))):
        lines.append(f"  progress  {progress}")
    if status.committed:
        lines.append(f"  committed {status.committed:g}")
    lines += [f"  {name:<9} {text}" for name, text in _fleet_lines(status).items()]
    if not status.stale and status.state in (JobState.STARTING, JobState.RUNNING):
        lines += [f"  worker    {_worker_text(worker)}" for worker in status.workers]
    lines += [f"  {child_text(child)}" for child in status.children]
    for trouble in status.troubles:
        lines.append(f"  waits     {trouble.what}: {trouble.why}")
    if status.run_id:
        lines.append(f"  MLflow    run {status.run_id}")
        lines += [f"            {status.mlflow_page}"] if status.mlflow_page else []
    return "\n".join(lines)


def _cost_lines(status: JobStatus) -> list[str]:
    lines = [f"  GPU-hours {status.gpu_hours:g}"] if status.gpu_hours else []
    if status.cost is not None:
        lines.append(f"  price     {cost_text(status.cost)}")
    return lines


def _descent_lines(status: JobStatus) -> list[str]:
    """Return the checkpoint that a job reads, and below it where that one came from."""
    first, *others = [f"step {one.step} of {one.job_id}" for one in status.descent] or [""]
    goes_on = bool(status.descent) and status.descent[0].weights == "all"
    lines = [f"goes on from {first}" if goes_on else f"of {first}"] if first else []
    return lines + [f"  which began with {text}" for text in others]


def child_text(child: ChildEntry) -> str:
    """Return a child of a group as one line: "train  RUNNING, 20/100 steps, 14.2/s  digits-..."."""
    if child.state is None:
        return f"{child.step}  {child.message}{_settings_text(child)}"
    state, progress = state_text(child), progress_text(child)
    message = f"{state}, {progress}" if progress else state
    return f"{child.step}  {message}  {child.job_id}{_settings_text(child)}"


def _settings_text(child: ChildEntry) -> str:
    return f"  ({_named_values(child.settings)})" if child.settings else ""


def _named_values(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _worker_text(worker: WorkerReport) -> str:
    names = ("rank", "phase", "shard", "step", "done", "rate_per_s")
    shown = {name: getattr(worker, name) for name in names}
    text = ", ".join(f"{key} {_short(value)}" for key, value in shown.items() if value is not None)
    return f"{text} of {worker.num_steps}" if worker.num_steps else text


def _fleet_lines(status: JobStatus) -> dict[str, str]:
    """Return what `status` tells of a fleet's shards and of what its images cost."""
    details = status.details
    if "num_shards" not in details:
        return {}
    lines = {
        "shards": f"{details['shards_done']:g} of {details['num_shards']:g} committed, "
        f"{details['shards_given_twice']:g} given to a second worker, "
        f"{counted(details['workers_lost'], 'worker')} lost"
    }
    for unit in ("gpu", "cpu"):
        useful = details.get(f"useful_{unit}_s_per_1000_images")
        if useful is not None:
            redone = details[f"redone_{unit}_s_per_1000_images"]
            lines["cost"] = f"{useful:g} {unit}-s useful, {redone:g} redone per 1,000 images"
    return lines


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def describe_event(event: Event) -> str:
    """Return an event as one line."""
    parts = [event.at.strftime("%Y-%m-%d %H:%M:%S"), f"[{event.attempt}]"]
    if event.state:
        parts.append(event.state)
    if event.reason:
        parts.append(f"({event.reason})")
    return " ".join([*parts, event.message]).rstrip()


def describe_plan(plan: Plan) -> str:
    """Return a plan as aligned lines; that of a group has a block for each child."""
    # Warnings were said already, on standard error.
    children = plan.children if isinstance(plan, GroupPlan) else ()
    parts = [plan.facts(), *(child.facts() for child in children)]
    return "\n\n".join(map(_aligned, parts))


def _aligned(facts: Mapping[str, object]) -> str:
    own = {k: value for k, value in facts.items() if k != "children" and value not in ([], {})}
    width = max(len(key) for key in own)
    return "\n".join(
        f"{key.replace('_', ' '):<{width}}  {_plan_value(key, value)}" for key, value in own.items()
    )


def _plan_value(key: str, value: object) -> str:
    if "bytes" in key and isinstance(value, int | float):
        return bytes_text(value)
    if isinstance(value, dict):
        return _named_values(value)
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def age_s(at: datetime) -> float:
    """Return the seconds since then."""
    return max(0.0, (datetime.now(UTC) - at).total_seconds())
