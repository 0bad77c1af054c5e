"""`--set key=VALUE` gives the value that stands there, or refuses it in one line."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BadInputError
from orchestrator.specs.document import parse_document, parse_value
from tests.support.odd_texts import ODD_TEXTS


@pytest.mark.parametrize(
    "text",
    [
        *(text for text in ODD_TEXTS if not text.startswith("[")),
        "#1", "./my set #1", "two\nlines", " a", "&a", "*a", "| x", "> x", "- a", "? a",
        "2026-01-01", "yes", "no", "0x", "1 000", "s3://b/k#v?x", "a: b: c", "---", "...", "key:",
    ],
)  # fmt: skip
def test_a_text_is_the_text_that_was_typed(text: str) -> None:
    """` #1` began a comment, and a training took the images of another folder."""
    document = parse_document("kind: train\n", "job.yaml")
    document.override(f"dataset.source={text}")
    assert document.value["dataset"]["source"] == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("2e-4", 2e-4),
        ("-1.5", -1.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, 2, 2]", [1, 2, 2]),
        ("{method: ddim, num_steps: 50}", {"method": "ddim", "num_steps": 50}),
        ("'7'", "7"),
        ('"a #b\\n"', "a #b\n"),
        ("['my set #1', 2]", ["my set #1", 2]),
    ],
)
def test_other_kinds_are_read_as_in_a_job_file(text: str, value: Any) -> None:
    """A number on the command line is the number of the file."""
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    ["[1, 2] # two", "'a' # b", "'a' b", "[1,\n2]", '"a\nb"', "[unclosed", "{a: 1}}", "'open"],
)
def test_what_yaml_would_drop_is_refused(text: str) -> None:
    """A part that is dropped without a word is the one that somebody meant."""
    with pytest.raises(BadInputError) as error:
        parse_value(text)
    assert "\n" not in str(error.value)


def test_an_option_with_a_line_break_is_told_in_one_line(tmp_path: Path) -> None:
    """The message names the option as it was typed."""
    document = parse_document("kind: train\n", str(tmp_path / "job.yaml"))
    document.override("name=a\nb")
    assert document.where(("name",)) == "--set 'name=a\\nb'"
