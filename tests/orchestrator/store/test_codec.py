"""The one form of stored JSON: two versions that meet at one object understand each other."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest

from orchestrator.errors import StoredFormError
from orchestrator.store.codec import Codec
from tests.support.fakes import MemoryStore


class Colour(StrEnum):
    """A word of a closed list."""

    RED = "red"


@dataclass(frozen=True)
class Inner:
    """A part of a form."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form with everything that forms hold."""

    name: str
    at: datetime | None = None
    colour: Colour = Colour.RED
    parts: tuple[Inner, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


FORM = Codec(Form, "form", version=2, upgrade=lambda value: {"name": value["title"], **value})
WHOLE = Form(
    name="a", at=datetime(2026, 1, 1, tzinfo=UTC), parts=(Inner(1), Inner(2)), more={"b": [1, None]}
)


def test_what_is_written_is_read_back() -> None:
    """Times, words, parts and free mappings keep their types."""
    assert FORM.decode(FORM.encode(WHOLE)) == WHOLE
    assert json.loads(FORM.encode(WHOLE))["format_version"] == 2


def test_unknown_keys_are_passed_over_and_missing_ones_have_defaults() -> None:
    """A version that knows more, or less, of the same format may have written it."""
    body = b'{"format_version": 2, "name": "a", "mood": "good", "parts": [{"size": 3}]}'
    assert FORM.decode(body) == Form(name="a", parts=(Inner(),))


@pytest.mark.parametrize("version", [{}, {"format_version": 1}])
def test_older_versions_are_read_as_what_they_meant(version: dict[str, int]) -> None:
    """Stores outlive versions; what has no version comes from before there were any."""
    body = json.dumps({**version, "title": "a"}).encode()
    assert FORM.decode(body) == Form(name="a")


def test_a_newer_version_is_refused_in_one_line() -> None:
    """Read by guess, it would be acted on."""
    store = MemoryStore()
    store.put("jobs/a/form.json", b'{"format_version": 3, "name": "a"}')
    expected = (
        r"^form jobs/a/form.json: a newer version wrote it \(format 3, this one reads up to 2\)"
    )
    with pytest.raises(StoredFormError, match=expected):
        FORM.read(store, "jobs/a/form.json")


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'{"format_version": 2}', b"\xff"])
def test_what_is_damaged_is_named_in_one_line(body: bytes) -> None:
    """The reader has to know which object to look at."""
    with pytest.raises(StoredFormError, match=r"^form jobs/a cannot be read: ") as caught:
        FORM.decode(body, "jobs/a")
    assert "\n" not in str(caught.value)


def test_nothing_is_none() -> None:
    """Most objects come later than their readers."""
    assert FORM.read(MemoryStore(), "nowhere") is None
    assert FORM.value(MemoryStore(), "nowhere") is None
