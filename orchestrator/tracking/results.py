"""What a group's own run in MLflow tells of its children once they have ended."""

from collections.abc import Mapping, Sequence

from orchestrator.jobs.progress import ChildEntry, read_progress
from orchestrator.lifecycle.state import GROUP_KINDS, JobRecord
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking import tags
from orchestrator.tracking.description import description

_MEASURES = {"bpd": "bits/dim", "loss": "loss"}  # the first that a child has says which is best
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
    if record.kind not in GROUP_KINDS or not record.state.has_ended:
        return {}
    progress = read_progress(store, record)
    children = progress.children if progress else ()
    measure = next((m for m in _MEASURES if any(m in c.scores for c in children)), None)
    if measure is None:
        return {}
    best = min((c for c in children if measure in c.scores), key=lambda c: c.scores[measure])
    winner = f"{best.job_id}: {_MEASURES[measure]} {best.scores[measure]:.4g}"
    room = _MOST_BYTES - len(description(spec, record, winner).encode())
    results = f"best: {winner}\n\n{_table(children, best, room)}"
    return {tags.BEST: winner, "mlflow.note.content": description(spec, record, results)}


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
