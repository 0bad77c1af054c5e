"""The tree of errors is drawn as it is, and each error says one line and survives pickling."""

import copy
import re

import pytest

from orchestrator import errors
from orchestrator.errors import OrchestratorError
from orchestrator.lifecycle.causes import reason_of
from orchestrator.lifecycle.retry import BUDGETS, FINAL_MESSAGES
from tests.support.errors import example_of, our_error_classes, subclasses

CLASSES = our_error_classes()


def test_the_drawing_of_the_tree_is_the_tree() -> None:
    """A reader takes it for complete."""
    drawn = re.findall(r"^    ((?:[|` -]{4})*)(\w+)", errors.__doc__ or "", re.MULTILINE)
    parents: dict[str, str] = {}
    above: list[str] = []
    for indent, name in drawn:
        depth = len(indent) // 4
        above[depth:] = [name]
        if depth:
            parents[name] = above[depth - 1]
    assert parents == {c.__name__: c.__bases__[0].__name__ for c in subclasses(OrchestratorError)}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_is_the_same_after_a_journey_and_says_one_line(cls: type[Exception]) -> None:
    """Arguments that are not handed on are lost on the way to another process."""
    error = example_of(cls)
    back = copy.copy(error)  # as pickle makes it
    assert (type(back), back.args, str(back)) == (cls, error.args, str(error))
    assert len(str(error).splitlines()) == 1
    assert reason_of(error) in {*BUDGETS, *FINAL_MESSAGES}
