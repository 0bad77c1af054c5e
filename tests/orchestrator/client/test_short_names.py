"""Side by side, jobs are called by what tells them apart, and never by the same name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.client.evaluations import Evaluated
from orchestrator.client.short_names import called, short_names

WORDS = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5).map("-".join)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["tri-ddpm-10-x-y", "tri-vae-x-y"], ["ddpm-10", "vae"]),
        (["digits"], ["digits"]),
        (["e1", "e2"], ["e1", "e2"]),
        (["set-1", "set"], ["set-1", "set"]),
        (["a-a-a", "a-a"], ["a-a", "a"]),
        (["g-s0-z", "g-s1-z", "other"], ["g-s0-z", "g-s1-z", "other"]),
    ],
)
def test_what_all_begin_and_end_with_is_left_out(names: list[str], short: list[str]) -> None:
    """The steps of a pipeline are told apart by their steps, not by twenty equal letters."""
    assert short_names(names) == dict(zip(names, short, strict=True))


@given(st.lists(WORDS, min_size=1, max_size=6, unique=True))
def test_no_two_jobs_get_one_name(names: list[str]) -> None:
    """Two rows of one name would be read as one set."""
    short = short_names(names)
    assert list(short) == names
    assert len(set(short.values())) == len(names)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["ab-a-x", "ab-b-x"], "a set called X is the job ab-X-x"),
        (["a-a", "a-b"], "a set called X is the job a-X"),
        (["e1", "e2"], ""),
        (["e1"], ""),
    ],
)
def test_a_short_name_becomes_the_jobs_id_again(names: list[str], told: str) -> None:
    """A step may be called as a part of the group's name is."""
    rows = [
        Evaluated(job_id=name, samples=name, reference="r", extractor="pixels", metrics={})
        for name in names
    ]
    assert called(rows) == told
