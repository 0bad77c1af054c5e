"""Numbers with what is counted."""

import pytest

from orchestrator.counts import counted, does, few


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "CPU", "1 CPU"),
        (1.0, "CPU", "1 CPU"),
        (0, "GPU", "0 GPUs"),
        (0.5, "GPU", "0.5 GPUs"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "try", "3 tries"),
        (2, "day", "2 days"),
        (1797, "image", "1797 images"),
    ],
)
def test_one_is_no_plural(number: float, noun: str, text: str) -> None:
    """A job that asks for "1 CPUs" looks as if nobody had ever run one."""
    assert counted(number, noun) == text


def test_a_number_is_written_as_it_is_asked_for() -> None:
    """A long list of data sets reads better with thousands apart."""
    assert counted(1797, "image", ",") == "1,797 images"


def test_of_many_names_the_first_ones_are_told_and_how_many_more() -> None:
    """A refusal that names a thousand jobs is read by nobody."""
    assert few(["a", "b"]) == "a, b"
    assert few(list("abcdefg")) == "a, b, c and 4 more"


def test_the_verb_agrees_with_how_many_there_are() -> None:
    """It said that "a, b refers to it", as if something had gone missing."""
    assert (does(1, "refer"), does(2, "refer")) == ("refers", "refer")
    assert (does(1, "were"), does(2, "were")) == ("was", "were")
