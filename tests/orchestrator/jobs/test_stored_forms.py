"""Records and decisions are read whoever wrote them, and refused where that cannot be right."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from orchestrator.client.results import read_evaluations
from orchestrator.client.status import job_status
from orchestrator.errors import StoredFormError
from orchestrator.jobs.decisions import Decisions, decode_decisions, read_decisions
from orchestrator.jobs.records import RECORD, RecordStore
from orchestrator.specs.evaluate import EvaluateJob, SetRef
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.models import model_of
from tests.support.world import train_job

KEY = JobPaths("t").record


def stored_record(**changes: Any) -> dict[str, Any]:
    """Return a record as the first version wrote it."""
    store = MemoryStore()
    store.put(JobPaths("t").spec, train_job("digits").model_dump_json().encode())
    first = json.loads(RECORD.encode(RecordStore(store).read("t").record))
    return {**first, "format_version": 1, "model": {}, "decisions": {}, **changes}


def test_a_record_of_the_first_version_has_a_model_or_none() -> None:
    """It had an empty mapping for none, and a copy of what was decided."""
    assert RECORD.decode(json.dumps(stored_record()).encode(), KEY).model is None
    model = {**asdict(model_of("digits", 7)), "a key of later": 1}
    old = stored_record(model=model, decisions={"compute": {"compiled": True}})
    assert RECORD.decode(json.dumps(old).encode(), KEY).model == model_of("digits", 7)


def test_a_record_comes_back_as_it_was_written() -> None:
    """With a model and without."""
    old = RECORD.decode(json.dumps(stored_record(model=asdict(model_of("d")))).encode(), KEY)
    assert RECORD.decode(RECORD.encode(old), KEY) == old


@pytest.mark.parametrize("body", [b'{"format_version": 9}', b"[]", b"{", b'{"attempt": []}'])
def test_decisions_that_cannot_be_understood_are_refused_in_one_line(body: bytes) -> None:
    """A worker that guessed would draw other bits than the set has."""
    with pytest.raises(StoredFormError, match=r"^decisions jobs/t/decisions.json[^\n]*$"):
        decode_decisions(body, JobPaths("t").decisions)


def test_status_shows_what_was_decided_from_the_first_moment_on() -> None:
    """Also what the orchestrator has not heard of: it is not copied into the record."""
    store = MemoryStore()
    store.put(JobPaths("t").spec, train_job("digits").model_dump_json().encode())
    assert job_status(store, "t").decisions == {}
    decided = Decisions({"format_version": 1, "attempt": 1, "microbatch_size": 4})
    store.put(JobPaths("t").decisions, decided.encode())
    assert read_decisions(store, JobPaths("t")) == decided
    assert job_status(store, "t").decisions == decided.values


def test_the_result_of_a_newer_version_is_refused_and_one_without_classes_is_read() -> None:
    """A table of guesses would be worse than none."""
    store = MemoryStore()
    spec = EvaluateJob(
        kind="evaluate", name="q", of=SetRef(job="images"), against=SetRef(job="digits")
    )
    store.put(JobPaths("e").spec, spec.model_dump_json().encode())
    result: dict[str, Any] = {
        "format_version": 1,
        "of": {"name": "images", "job_id": "images", "sha256": "a"},
        "against": {"name": "digits"},
        "extractor": {"name": "efflite0", "image_size": 224},
        "scores": {"kid-efflite0": {"value": 0.5, "spread": 0.1, "a key of later": 1}},
        "classes": {},
    }
    store.put(JobPaths("e").evaluation, json.dumps(result).encode())
    (read,) = read_evaluations(store, ["e"]).rows
    assert (read.samples, read.reference, read.extractor) == ("images", "digits", "efflite0")
    assert (read.metrics["kid-efflite0"].value, read.classifier) == (0.5, "")
    store.put(JobPaths("e").evaluation, json.dumps({**result, "format_version": 9}).encode())
    with pytest.raises(StoredFormError, match="a newer version wrote it"):
        read_evaluations(store, ["e"])
