"""The page of one job: what it is, its timeline, attempts and causes, pace, pictures, settings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.client.describe import (
    child_text,
    duration_text,
    fleet_text,
    progress_text,
    state_text,
)
from orchestrator.client.status import JobStatus
from orchestrator.jobs.records import Event
from orchestrator.lifecycle.state import AttemptRecord, JobState
from orchestrator.scheduling.explanation import Explanation
from orchestrator.ui.elements import Markup, el, joined, row, table
from orchestrator.ui.jobs_page import bar, job_link, state_badge

_SHOWN_PICTURES = 6


@dataclass(frozen=True)
class JobView:
    """What is known of a job.

    Attributes:
        status: What it is.
        events: What happened to it.
        explanation: Why it waits; None where it does not.
        log: The last lines of its log.
        at: Now, by the store's clock.
        links: Addresses of its pages elsewhere, by their name.
    """

    status: JobStatus
    events: Sequence[Event]
    explanation: Explanation | None
    log: Sequence[str]
    at: datetime
    links: Mapping[str, str]


def job_now(view: JobView) -> Markup:
    """Return what changes while somebody looks."""
    status = view.status
    return joined(
        el("p", state_badge(status.state, state_text(status))),
        el("p", status.message) if status.message else None,
        el(
            "p",
            bar(status.done, status.total, "progress"),
            " ",
            ", ".join(part for part in (progress_text(status), _fleet(status)) if part),
        ),
        _facts(view),
        _why(view.explanation, view.at),
        *(
            el("p", f"waits in the background: {trouble.what}: {trouble.why}", class_="warn")
            for trouble in status.troubles
        ),
        _children(status),
        _timeline(view),
        _attempts(status.attempts, view.at),
        _workers(status),
        _log(view.log),
    )


def _facts(view: JobView) -> Markup:
    status = view.status
    facts: dict[str, object] = {
        "kind": status.kind,
        "queue": f"{status.queue}, priority {status.priority}",
        "submitted": f"{status.submitted_at:%Y-%m-%d %H:%M:%S} UTC"
        + (f" by {status.owner}" if status.owner else ""),
        "attempt": status.attempt,
    }
    if status.committed:
        facts["cannot be lost"] = f"{status.committed:g} {status.unit or ''}"
    if status.parent:
        facts["belongs to"] = job_link(status.parent)
    if status.model is not None:
        facts["model"] = joined(f"step {status.model.step} of ", job_link(status.model.job_id))
    if status.run_id:
        facts["MLflow run"] = status.run_id
    for name, address in view.links.items():
        facts[name] = el("a", address.partition("?")[0], href=address, rel="noreferrer")
    return el("dl", *(joined(el("dt", key), el("dd", value)) for key, value in facts.items()))


def _why(explanation: Explanation | None, at: datetime) -> Markup | None:
    if explanation is None:
        return None
    starts = ""
    if explanation.estimated_start_at is not None:
        in_s = max(0.0, explanation.estimated_start_at - at.timestamp())
        starts = f" It starts in about {duration_text(in_s)}."
    ahead = [
        joined(", " if number else None, job_link(j))
        for number, j in enumerate(explanation.ahead[:8])
    ]
    return el(
        "section",
        el("h2", "Why it waits"),
        el("p", f"{explanation.verdict}: {explanation.reason}.{starts}"),
        el(
            "p",
            f"It asks for {explanation.asks_for}, and is number {explanation.position} in line.",
        ),
        el("p", "Ahead of it: ", *ahead) if ahead else None,
    )


def _children(status: JobStatus) -> Markup:
    rows = [
        row(
            job_link(child.job_id) if child.state else child.step,
            state_badge(child.state, state_text(child)) if child.state else child.message,
            joined(bar(child.done, child.total, f"progress of {child.step}"), progress_text(child)),
            ", ".join(f"{key}={value}" for key, value in child.settings.items()),
            title=child_text(child),
        )
        for child in status.children
    ]
    return table("Its jobs", ("job", "state", "progress", "settings"), rows)


def _timeline(view: JobView) -> Markup:
    rows = [
        row(
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            event.attempt or "",
            state_badge(event.state) if event.state else "",
            event.reason or "",
            event.message,
        )
        for event in view.events
    ]
    return table("Timeline", ("when (UTC)", "attempt", "state", "cause", "what"), rows)


def _attempts(attempts: Sequence[AttemptRecord], at: datetime) -> Markup:
    rows = [
        row(
            attempt.number,
            f"{attempt.started_at:%Y-%m-%d %H:%M:%S}",
            duration_text(((attempt.ended_at or at) - attempt.started_at).total_seconds()),
            attempt.reason or ("it runs" if attempt.ended_at is None else "succeeded"),
            attempt.progress,
            ", ".join(node[:8] for node in attempt.node_ids),
            ", ".join(node[:8] for node in attempt.failed_node_ids),
        )
        for attempt in attempts
    ]
    heads = ("attempt", "started (UTC)", "took", "ended by", "committed", "nodes", "to blame")
    return table("Attempts", heads, rows)


def _fleet(status: JobStatus) -> str:
    """Return how many workers are at it; of what has ended, "0 workers" is no news."""
    return fleet_text(status) if status.state is JobState.RUNNING else ""


def _workers(status: JobStatus) -> Markup:
    if status.state not in (JobState.STARTING, JobState.RUNNING) or status.stale:
        return Markup()
    rows = [
        row(
            worker.rank,
            worker.phase or "",
            worker.node_id[:8],
            "" if worker.done is None else f"{worker.done:g}",
            f"{worker.rate_per_s:.3g}/s" if worker.rate_per_s else "",
            "" if worker.shard is None else f"shard {worker.shard}, step {worker.step}",
        )
        for worker in status.workers
    ]
    return table("Workers", ("rank", "phase", "node", "done", "pace", "in hand"), rows)


def _log(lines: Sequence[str]) -> Markup | None:
    if not lines:
        return None
    return el("section", el("h2", "The end of its log"), el("pre", "\n".join(lines), tabindex="0"))


def pictures(job_id: str, keys: Sequence[str]) -> Markup | None:
    """Return the pictures of a job: grids and film strips, the newest first.

    Args:
        job_id: The job.
        keys: Paths of PNGs below its folder.
    """
    by_kind: dict[str, list[str]] = {}
    for key in sorted(keys):
        by_kind.setdefault(_kind_of(key), []).append(key)
    if not by_kind:
        return None
    sections = [_of_kind(job_id, kind, found[::-1]) for kind, found in by_kind.items()]
    return el("section", el("h2", "Pictures"), *sections)


def _kind_of(key: str) -> str:
    *_, folder, name = key.split("/")
    return folder if folder != "images" else name


def _of_kind(job_id: str, kind: str, keys: Sequence[str]) -> Markup:
    first, rest = keys[:_SHOWN_PICTURES], keys[_SHOWN_PICTURES:]
    older = None
    if rest:
        summary = el("summary", f"{len(rest)} older ones")
        inner = el("div", *_figures(job_id, rest), class_="pictures")
        older = el("details", summary, inner, id=f"older-{kind}")
    return joined(el("h3", kind), el("div", *_figures(job_id, first), class_="pictures"), older)


def _figures(job_id: str, keys: Sequence[str]) -> Iterator[Markup]:
    for key in keys:
        name = key.rpartition("/")[2].removesuffix(".png")
        image = el(
            "img", src=f"/jobs/{job_id}/pictures/{key}", alt=f"{name} of {job_id}", loading="lazy"
        )
        yield el("figure", image, el("figcaption", name))


def settings(text: str) -> Markup:
    """Return what was asked for."""
    return el("details", el("summary", "Settings"), el("pre", text, tabindex="0"), id="settings")


def action_forms(status: JobStatus, csrf: str) -> Markup | None:
    """Return the buttons that change a job, each behind a second look."""
    verb = "retry" if status.state in (JobState.FAILED, JobState.CANCELLED) else "cancel"
    if status.state is JobState.SUCCEEDED:
        return None
    button = el("button", f"{verb} {status.job_id}", id=verb)
    form = el(
        "form",
        el("input", type="hidden", name="csrf", value=csrf),
        button,
        method="post",
        action=f"/jobs/{status.job_id}/{verb}",
    )
    return el("details", el("summary", f"{verb} it"), form, id=f"{verb}-it")
