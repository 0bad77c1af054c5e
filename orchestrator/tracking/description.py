"""What stands above a run in MLflow: what it is, and how to go on, as Markdown."""

import re
from collections.abc import Mapping

from orchestrator.lifecycle.state import JobRecord

_FENCE = "```"


def description(spec: Mapping[str, object], record: JobRecord, results: str = "") -> str:
    """Return a run's description.

    Args:
        spec: What was asked, as it is stored.
        record: The job.
        results: What came of it, as Markdown; it comes first, since a page shows the first lines.
    """
    facts = {
        "data": _of(spec, "dataset", "source"),
        "model": _model(spec),
        "begins with": _init(spec),
        "part of": f"{record.parent}, as {record.step}" if record.parent else "",
        "submitted by": record.owner,
    }
    result_lines = ["", results] if results else []
    lines = [f"**{_plain(record.kind)}** `{record.job_id}`", *result_lines, ""]
    lines += [f"- {name}: `{_plain(text)}`" for name, text in facts.items() if text]
    verbs = [f"ddpmctl status {record.job_id}", f"ddpmctl resubmit {record.job_id} --set ..."]
    return "\n".join([*lines, "", _FENCE, *verbs, _FENCE])


def _model(spec: Mapping[str, object]) -> str:
    """Return whose weights a job reads, or how wide a network it trains is."""
    for name in ("job", "registered", "checkpoint"):
        if value := _of(spec, "model", name):
            return f"{name} {value}"
    channels = _of(spec, "model", "channels")
    return f"{channels} channels" if channels else ""


def _init(spec: Mapping[str, object]) -> str:
    """Return what a training starts from."""
    for name in ("job", "registered", "checkpoint"):
        if value := _of(spec, "init", name):
            return f"{_of(spec, 'init', 'weights')} of {name} {value}"
    return ""


def _of(spec: Mapping[str, object], section: str, name: str) -> str:
    inner = spec.get(section)
    value = inner.get(name) if isinstance(inner, Mapping) else None
    return "" if value is None else str(value)


def _plain(text: str) -> str:
    """Return a text that Markdown takes as it stands, on one line."""
    return re.sub(r"[`\s]+", " ", text)
