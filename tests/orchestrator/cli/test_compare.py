"""The table of evaluations says what each number is worth."""

import numpy as np

from orchestrator.cli.compare import comparison_table
from orchestrator.client.results import read_evaluations
from tests.support.evaluations import put_evaluation
from tests.support.fakes import MemoryStore
from tests.support.sample_sets import put_set


def test_one_set_reads_from_top_to_bottom_within_a_terminal() -> None:
    """The demo ends with it, on a screen of 80 columns."""
    store = MemoryStore()
    put_set(store, "set-1", np.zeros((8, 4, 4, 1), np.uint8), 4)
    put_evaluation(store, "e1", "set-1", 0.01)
    lines = comparison_table(read_evaluations(store, ["e1"]).rows).splitlines()
    kid = next(line for line in lines if line.split()[0] == "kid")
    assert kid.split() == ["kid", "0.0100", "±0.0010", "0.0000", "±0.0020"]
    assert max(map(len, lines[:-3])) <= 80


def test_the_table_has_a_line_for_each_set_and_one_for_real_images() -> None:
    """A number without its error and without what real images get tells nothing."""
    store = MemoryStore()
    for number in (1, 2):
        put_set(store, f"set-{number}", np.zeros((8, 4, 4, 1), np.uint8), 4 * number)
        put_evaluation(store, f"e{number}", f"set-{number}", 0.01 * number)
    lines = comparison_table(read_evaluations(store, ["e1", "e2"]).rows).splitlines()
    one, other, real = (
        next(line for line in lines if line.lstrip().startswith(name))
        for name in ("set-1", "set-2", "real (<digits>)")
    )
    assert "0.0100 ±0.0010" in one
    assert "0.0200 ±0.0010" in other
    assert "0.0000 ±0.0020" in real
    assert "0.375 (one)" in one
    assert "0.500 (zero)" in real
    assert "right of 0.900 of 30 held-out images" in lines[-1]
