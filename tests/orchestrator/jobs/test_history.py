"""Events are written once, whatever becomes of an answer."""

from datetime import UTC, datetime, timedelta

from orchestrator.jobs.records import Event, RecordStore
from tests.support.fakes import MemoryStore


def test_an_event_that_stands_already_is_not_written_again() -> None:
    """Sent again after a lost answer it would stand twice; another one's is not ours."""
    store = MemoryStore()
    records = RecordStore(store)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ours, theirs = Event(at=at, message="ours"), Event(at=at, message="theirs")
    records.append_event("j", theirs)
    records.append_event("j", ours)
    assert [event.message for event in records.events("j")] == ["theirs", "ours"]


def test_what_somebody_may_have_told_is_told_once() -> None:
    """Who takes over cannot know whether the one before died before its event or after it."""
    store = MemoryStore()
    records = RecordStore(store)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    since = at - timedelta(seconds=1)
    for message in ("a", "b", "a"):
        records.tell_once("j", Event(at=at, message=message), since)
    later = at + timedelta(minutes=1)
    records.tell_once("j", Event(at=later, message="a"), later)
    assert [event.message for event in records.events("j")] == ["a", "b", "a"]
