"""The page of all jobs: who acts, the nodes, the queue with positions and reasons, what ended."""

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

from orchestrator.client.describe import duration_text, progress_text, state_text
from orchestrator.client.overview import Overview
from orchestrator.client.status import ListedJob
from orchestrator.jobs.nodes import NodeEntry
from orchestrator.lifecycle.state import JobState
from orchestrator.ui.elements import Markup, el, joined, row, table

_SHOWN_ENDED = 50
_SHOWN_WAITING = 100
_AT_WORK = (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)


def job_link(job_id: str, label: str | None = None) -> Markup:
    """Return a link to a job's page."""
    return el("a", label or job_id, href=f"/jobs/{job_id}", id=f"row-{job_id}", data_row=True)


def state_badge(state: object, words: str = "") -> Markup:
    """Return a state in its colour; words, too, since colour alone tells nothing to many."""
    return el("span", words or state, class_=f"state {state}")


def bar(done: float, total: float | None, label: str) -> Markup:
    """Return a progress bar; nothing where the total is not known."""
    if not total:
        return Markup()
    return el("progress", value=f"{min(done, total):g}", max=f"{total:g}", aria_label=label)


def jobs_now(
    overview: Overview,
    query: Mapping[str, str],
    why: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
) -> Markup:
    """Return what there is.

    Args:
        overview: What there is.
        query: `name` leaves jobs out whose name and id do not hold it; `all` shows all of them.
        why: Returns why jobs of the queue wait, by id; what else is told of a job stands in for a
            reason that it does not know.
    """
    name = query.get("name", "")
    jobs = [job for job in overview.jobs if name in job.job_id or name in job.name]
    waiting = [job for job in jobs if job.state is JobState.QUEUED]
    waiting.sort(key=lambda job: (job.position is None, job.position))
    working = [job for job in jobs if job.state in _AT_WORK]
    ended = [job for job in jobs if job.state.has_ended]
    shown = ended if "all" in query else ended[:_SHOWN_ENDED]
    first = waiting if "all" in query else waiting[:_SHOWN_WAITING]
    all_of_them = "/?" + urlencode({"name": name, "all": "1"} if name else {"all": "1"})
    return joined(
        _who_acts(overview),
        _at_work(working, overview),
        _queue(first, overview, why([job.job_id for job in first])),
        _more("waiting", len(first), len(waiting), all_of_them),
        _ended(shown, overview),
        _more("ended", len(shown), len(ended), all_of_them),
        None if jobs else el("p", "No jobs."),
        _nodes(overview.nodes),
        _quotas(overview.quotas),
    )


def _more(what: str, num_shown: int, num_there: int, address: str) -> Markup | None:
    if num_shown == num_there:
        return None
    return el("p", el("a", f"all {num_there} {what} jobs", href=address))


def search_form(query: Mapping[str, str]) -> Markup:
    """Return the form that leaves jobs out."""
    field = el("input", name="name", type="search", value=query.get("name", ""), id="name")
    label = el("label", "name or id holds ", field)
    return el("form", label, el("button", "show"), method="get", action="/")


def _who_acts(overview: Overview) -> Markup:
    at = f"{overview.at:%Y-%m-%d %H:%M:%S} UTC"
    if overview.is_acting:
        return el("p", f"{at}: the orchestrator acts.")
    if overview.acted_at is None:
        return el("p", f"{at}: no orchestrator ever ran on this store.", class_="warn")
    silent_s = (overview.at - overview.acted_at).total_seconds()
    message = (
        f"{at}: no orchestrator for {duration_text(silent_s)}. The states below are those that it "
        "wrote last; "
    )
    return el(
        "p", message, el("code", "ddpmctl orchestrator ensure"), " starts one.", class_="warn"
    )


def _since(job: ListedJob, overview: Overview) -> str:
    return duration_text(max(0.0, (overview.at - job.changed_at).total_seconds()))


def _at_work(jobs: Sequence[ListedJob], overview: Overview) -> Markup:
    rows = [
        row(
            job_link(job.job_id),
            job.kind,
            state_badge(job.state, state_text(job)),
            joined(bar(job.done, job.total, f"progress of {job.job_id}"), " ", progress_text(job)),
            _since(job, overview),
        )
        for job in jobs
    ]
    return table("At work", ("job", "kind", "state", "progress", "since"), rows)


def _queue(jobs: Sequence[ListedJob], overview: Overview, reasons: Mapping[str, str]) -> Markup:
    rows = [
        row(
            job_link(job.job_id),
            job.position or "",
            job.kind,
            f"{job.queue}, {job.priority}",
            reasons.get(job.job_id) or ". ".join(filter(None, (job.reason, job.message))),
            _since(job, overview),
        )
        for job in jobs
    ]
    heads = ("job", "place", "kind", "queue, priority", "why it waits", "since")
    return table("In the queue", heads, rows)


def _ended(jobs: Sequence[ListedJob], overview: Overview) -> Markup:
    rows = [
        row(
            job_link(job.job_id),
            job.kind,
            state_badge(job.state, state_text(job)),
            progress_text(job),
            job.message,
            f"{_since(job, overview)} ago",
        )
        for job in jobs
    ]
    return table("Ended", ("job", "kind", "state", "came to", "message", "when"), rows)


def _nodes(nodes: Sequence[NodeEntry]) -> Markup:
    rows = [
        row(
            f"{node.host} {node.node_id[:8]}".strip(),
            f"{node.cpus - node.free_cpus:g} of {node.cpus:g}",
            f"{node.gpus - node.free_gpus:g} of {node.gpus:g} {node.accelerator}".strip(),
            joined(
                *(
                    joined(", " if number else None, el("a", job, href=f"/jobs/{job}"), f" x{n}")
                    for number, (job, n) in enumerate(node.workers.items())
                )
            ),
            "; ".join(f"{one.job_id}: {one.why}" for one in node.avoided_by),
        )
        for node in nodes
    ]
    heads = ("node", "CPUs held", "GPUs held", "workers", "avoided by")
    return table("Nodes, as the orchestrator saw them last", heads, rows)


def _quotas(quotas: Mapping[str, float]) -> Markup:
    rows = [row(name, f"{gpus:g}") for name, gpus in sorted(quotas.items())]
    return table("Quotas", ("queue", "GPUs at once"), rows)
