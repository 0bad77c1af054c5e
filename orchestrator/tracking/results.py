"""What a group's own run in MLflow shows of its children once they have ended."""

from collections.abc import Mapping, Sequence

from orchestrator.jobs.progress import ChildEntry, read_progress
from orchestrator.lifecycle.state import GROUP_KINDS, JobRecord
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking import tags
from orchestrator.tracking.description import description
from orchestrator.tracking.server import MetricValue

_MEASURES = {"bpd": "bits/dim", "loss": "loss"}  # the first that a child has says which is best
_SCORES = ("bpd", "bpd_se", "loss")
_MOST_BYTES = 4500  # MLflow's databases hold 5,000 of a tag


def result_tags(
    store: ObjectStore, record: JobRecord, spec: Mapping[str, object]
) -> dict[str, str]:
    """Return the tags of a group that has ended: its children as a table, and which is best.

    Args:
        store: Where the group is.
        record: The group.
        spec: What was asked.

    Returns:
        Nothing for what is no group, has not ended, or has no children with scores.
    """
    children = _results(store, record)
    measure = _measure_of(children)
    if measure is None:
        return {}
    best = _best(children, measure)
    winner = f"{best.job_id}: {_MEASURES[measure]} {best.scores[measure]:.4g}"
    room = _MOST_BYTES - len(description(spec, record, winner).encode())
    results = f"best: {winner}\n\n{_table(children, best, room)}"
    return {tags.BEST: winner, "mlflow.note.content": description(spec, record, results)}


def result_metrics(store: ObjectStore, record: JobRecord) -> list[MetricValue]:
    """Return the metrics of a group that has ended: what each child is worth, and the best one.

    `jobs/bpd` has a child's number for its step, so that a chart shows all; `best/bpd`
    is that of the best one, and `best/job` its number.
    """
    children = _results(store, record)
    measure = _measure_of(children)
    if measure is None:
        return []
    best, at_ms = _best(children, measure), int(record.changed_at.timestamp() * 1000)
    values = [
        MetricValue(f"jobs/{name}", child.scores[name], at_ms, _number(child, place))
        for place, child in enumerate(children)
        for name in _SCORES
        if name in child.scores
    ]
    won = {name: best.scores[name] for name in _SCORES if name in best.scores}
    logged = {**won, "job": float(_number(best, children.index(best)))}
    return values + [MetricValue(f"best/{name}", value, at_ms, 0) for name, value in logged.items()]


def _number(child: ChildEntry, place: int) -> int:
    """Return the number of a sweep's job, which its id ends with; of other groups, its place."""
    return int(child.step) if child.step.isdecimal() else place


def _results(store: ObjectStore, record: JobRecord) -> tuple[ChildEntry, ...]:
    """Return the children of a group that has ended."""
    if record.kind not in GROUP_KINDS or not record.state.has_ended:
        return ()
    progress = read_progress(store, record)
    return progress.children if progress else ()


def _measure_of(children: Sequence[ChildEntry]) -> str | None:
    """Return what says which child is best; None where none has a score."""
    return next((m for m in _MEASURES if any(m in c.scores for c in children)), None)


def _best(children: Sequence[ChildEntry], measure: str) -> ChildEntry:
    return min((c for c in children if measure in c.scores), key=lambda c: c.scores[measure])


def _table(children: Sequence[ChildEntry], best: ChildEntry, room: int) -> str:
    heads = ["job", "settings", "state", *_MEASURES.values()]
    lines = [_row(heads), _row(["---"] * len(heads))]
    left = room - sum(map(len, lines)) - 40
    for number, child in enumerate(children):
        line = _row(_cells(child, is_best=child is best))
        left -= len(line.encode()) + 1
        if left < 0:
            return "\n".join([*lines, "", f"and {len(children) - number} more"])
        lines.append(line)
    return "\n".join(lines)


def _cells(child: ChildEntry, *, is_best: bool) -> list[str]:
    name = f"**{child.job_id}** (best)" if is_best else child.job_id
    settings = ", ".join(f"{key}={_plain(value)}" for key, value in child.settings.items())
    scores = (child.scores.get(measure) for measure in _MEASURES)
    shown = ["" if score is None else f"{score:.4g}" for score in scores]
    return [name, settings or child.step, str(child.state or ""), *shown]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(value: object) -> str:
    """Return a value that ends neither the cell nor the line."""
    return " ".join(str(value).replace("|", "/").replace("`", "'").split())
