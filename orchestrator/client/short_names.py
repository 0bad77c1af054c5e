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
    if len(split) < 2:
        return {name: name for name in split}
    words = list(split.values())
    shortest = min(len(one) for one in words)
    front = min(_common(words), shortest - 1)
    back = min(_common([one[::-1] for one in words]), shortest - 1 - front)
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
    whole, short = next(iter(short_names(row.samples for row in rows).items()))
    return "" if whole == short else f"a set called X is the job {whole.replace(short, 'X', 1)}"


def _common(lists: Sequence[Sequence[str]]) -> int:
    """Return how many of the first words are the same in all."""
    return len(list(takewhile(lambda at: len(set(at)) == 1, zip(*lists, strict=False))))
