"""What sets and trainings are called where they stand side by side: what tells them apart."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

from orchestrator.client.evaluations import Evaluated


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return names without the words that all of them begin and end with.

    Jobs of one group are called "<group>-<step>-<date>-<time>-<chance>": side by side the step is
    what a reader looks for. Words are what stands between "-"; no name is cut to nothing, and a
    name alone stays whole.

    Args:
        names: Any; equal ones count once.
    """
    split = {name: name.split("-") for name in names}
    front, back = _left_out(list(split.values()))
    return {name: "-".join(one[front : len(one) - back]) for name, one in split.items()}


def by_short_names(rows: Iterable[Evaluated]) -> list[Evaluated]:
    """Return rows whose sets and trainings have short names: for the eye, not to find jobs by."""
    found = list(rows)
    sets = short_names(row.samples for row in found)
    trainings = short_names(row.training for row in found if row.training)
    return [
        replace(row, samples=sets[row.samples], training=trainings.get(row.training, ""))
        for row in found
    ]


def called(rows: Iterable[Evaluated]) -> str:
    """Return how a set's short name becomes its job's id again; "" where names are whole."""
    split = [name.split("-") for name in dict.fromkeys(row.samples for row in rows)]
    front, back = _left_out(split)
    if not front and not back:
        return ""
    first = split[0]
    whole = [*first[:front], "X", *first[len(first) - back :]]
    return f"a set called X is the job {'-'.join(whole)}"


def _left_out(names: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Return how many words are left out at the front and at the back of names."""
    if len(names) < 2:
        return 0, 0
    shortest = min(map(len, names))
    front = min(_common(names), shortest - 1)
    return front, min(_common([name[::-1] for name in names]), shortest - 1 - front)


def _common(lists: Sequence[Sequence[str]]) -> int:
    """Return how many of the first words are the same in all."""
    return len(list(takewhile(lambda at: len(set(at)) == 1, zip(*lists, strict=False))))
