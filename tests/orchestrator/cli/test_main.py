"""What the command line refuses by itself, and in which form it says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DDPMCTL = Path(sys.executable).with_name("ddpmctl")


def complaint(folder: Path, *arguments: str) -> str:
    """Return what a call of ddpmctl that must fail as a mistake says."""
    done = subprocess.run([DDPMCTL, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2, done
    assert list(folder.iterdir()) == []  # no stack was started for the sake of a typo
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("cancel", "a", "--grace-s", "inf"), "inf is no number of seconds"),
        (("cancel", "a", "--grace-s", "nan"), "nan is no number of seconds"),
        (("queue", "set", "a", "--gpus", "inf"), "--gpus must be from 0 to"),
        (("queue", "set", "a", "--gpus", "nan"), "--gpus must be from 0 to"),
        (("queue", "set", "a", "--gpus", "-2"), "--gpus must be from 0 to"),
    ],
)
def test_a_number_without_end_is_a_mistake(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """In the store it would be met by the loop in which all jobs wait."""
    assert told in complaint(tmp_path, *arguments)


def test_errors_are_json_only_where_that_was_asked_for(tmp_path: Path) -> None:
    """A path may begin like the option's value."""
    arguments = ("queue", "set", "a", "--gpus", "inf")
    for form in (("-o", "json"), ("-ojson",), ("--output", "json"), ("--output=json",)):
        assert "--gpus" in json.loads(complaint(tmp_path, *arguments, *form))["error"]
    told = complaint(tmp_path, "samples", "export", "a", "--output", "json-set.npz", "--what")
    assert not told.startswith("{")
