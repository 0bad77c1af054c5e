"""YAML 1.2 as people write it, and what is said where it is none."""

from typing import Any

import pytest

from orchestrator.errors import BadInputError
from orchestrator.specs.document import parse_document, parse_value
from orchestrator.specs.yaml_nodes import plain_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:\tb\n", {"a": "b"}),
        ("a: 1\t# why\n", {"a": 1}),
        ("a:\t\n  b: 1\n", {"a": {"b": 1}}),
        ("a: 1\n\t# a comment\nb: 2\n", {"a": 1, "b": 2}),
        ("a:\n- \tx\n", {"a": ["x"]}),
        ("a: x\ty\n", {"a": "x\ty"}),
        ("a: 'x\ty'\n", {"a": "x\ty"}),
        ("a: [1,\t2]\n", {"a": [1, 2]}),
        ("a: yes\nb: 010\nc: 2e-4\nd: 0x1F\ne: 2026-01-01",
         {"a": "yes", "b": 10, "c": 2e-4, "d": 31, "e": "2026-01-01"}),
        ("x: &x {c: 1, d: 2}\na: {<<: *x, d: 3}", {"x": {"c": 1, "d": 2}, "a": {"c": 1, "d": 3}}),
    ],
)  # fmt: skip
def test_what_yaml_1_2_allows_is_read(text: str, value: dict[str, Any]) -> None:
    """Tabs between tokens are valid, and numbers are those of YAML 1.2."""
    assert plain_mapping(text, "f")[0] == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n\tb: 1\n", "f:2: no valid YAML: a tab stands where only spaces may"),
        ("a: &x {c: 1}\nb:\n  <<: *x\n  <<: *x\n", "f:4: key '<<' is given twice; write `<<: [*a"),
        ("a: 1\nb: \x00", "f:2: the character U+0000 is no text"),
        ("a: 1\n\x0cb: 2", "f:2: the character U+000C is no text"),
        ("a:\n  b: 1\n c: 2\n", "f:3: no valid YAML: its indentation does not fit"),
        ("a:\n  b: [\n", "f:3: no valid YAML: a bracket that is opened above is never closed"),
        ("a: [1, :]\n]", "f:2: no valid YAML"),
        ("a: b: c", "f:1: no valid YAML: a second `: ` in one line; quote the value"),
        ("x: 1\na: %x", "f:2: no valid YAML: text cannot begin with '%'; quote it"),
        ("a: [1, 2\nb: 3", "f:1: no valid YAML: a list that is opened with [ here"),
        ("a: 'x\nb: 3", "f:1: no valid YAML: a quote that is opened here is never closed"),
        ("a: *x", "f:1: no valid YAML: nothing above is called &x"),
        ("a: 1\n---\nb: 2", "f:2: no valid YAML: a second document begins here"),
        ("%YAML 1.1\n---\na: yes", "f:1: %YAML 1.1: only YAML 1.2 is read"),
        ("a: 1\n1.5: 2", "f:2: key 1.5 is not a word"),
        ("a: !!python/name:os.system 1", "f:1: tag "),
        ("- a", "f: a job file is a mapping"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text: str, told: str) -> None:
    """In words of somebody who writes files, not of the parser."""
    with pytest.raises(BadInputError) as caught:
        plain_mapping(text, "f")
    assert str(caught.value).startswith(told)


def test_a_variable_is_a_value_and_never_a_piece_of_yaml() -> None:
    """What stands in the environment may hold anything."""
    held = {"STEPS": "500", "WHERE": "a #b: c\n- d", "AWS_SECRET_ACCESS_KEY": "s"}
    text = "n: ${STEPS}\nm: ${OTHER:-1e-3}\np: ${WHERE}\nq: x/${STEPS}/$$y\nr: $STEPS\n"
    document = parse_document(text, "f", held)
    assert document.value == {"n": 500, "m": 1e-3, "p": held["WHERE"], "q": "x/500/$y",
                              "r": "$STEPS"}  # fmt: skip
    assert document.variables == {"STEPS": "500", "OTHER": "1e-3", "WHERE": held["WHERE"]}
    assert parse_document("n: ${STEPS}", "f").value == {"n": "${STEPS}"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "a: 1\nb: ${NONE}",
            "f:2: the variable NONE is not set; set it, or write ${NONE:-default}",
        ),
        ("a: ${AWS_SECRET_ACCESS_KEY}", "f:1: ${AWS_SECRET_ACCESS_KEY} looks like a secret"),
        ("a: ${MY_TOKEN:-x}", "f:1: ${MY_TOKEN} looks like a secret"),
        ("a: ${9}", "f:1: write a variable as ${NAME}"),
    ],
)
def test_a_variable_that_cannot_be_filled_in_is_told(text: str, told: str) -> None:
    """A job file is kept for years: no secret may enter it."""
    with pytest.raises(BadInputError) as caught:
        parse_document(text, "f", {"AWS_SECRET_ACCESS_KEY": "s", "MY_TOKEN": "t"})
    assert str(caught.value).startswith(told)


def test_a_whole_number_may_be_written_as_one_with_an_exponent() -> None:
    """`--set` reads as a file does."""
    assert parse_value("1e6") == 1e6
    assert parse_value('"1e6"') == "1e6"
