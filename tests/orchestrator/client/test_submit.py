"""The same file under the same id is the same job, also after defaults have changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.submit import Submission, submit_job, submit_with_smoke
from orchestrator.errors import SpecConflictError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission, read_submitted
from orchestrator.specs.files import load_job_file
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore

SAMPLE = """\
kind: sample
name: s
model: {job: t}
num_samples: 256
sampling: {num_steps: 50}
"""
PIPELINE = """\
kind: pipeline
name: p
steps:
  train: {kind: train, dataset: {source: digits}, training: {num_steps: "${STEPS:-5}"}}
  sample: {kind: sample, model: {step: train}, num_samples: 128}
"""


def submit(store: MemoryStore, folder: Path, text: str, *overrides: str) -> Submission:
    """Submit a job file's text under the id "mine"."""
    file = folder / "job.yaml"
    file.write_text(text)
    job_file = load_job_file(file, overrides, {})
    return submit_job(store, job_file.spec, "mine", job_file.asked)


def change_stored(store: MemoryStore, *way: str | int, value: Any) -> None:
    """Make a stored spec as if it had been put by a version with another default."""
    key = JobPaths("mine").spec
    spec = json.loads(store.get(key).body)
    inner = spec["spec"]
    for part in way[:-1]:
        inner = inner[part]
    inner[way[-1]] = value
    store.put(key, json.dumps(spec).encode())


def test_another_default_does_not_make_the_same_file_another_job(tmp_path: Path) -> None:
    """A script that submits again after an upgrade must find its job."""
    store = MemoryStore()
    assert submit(store, tmp_path, SAMPLE).is_new
    change_stored(store, "sampling", "variance", value="fixed_large")
    change_stored(store, "priority", value=40)
    assert not submit(store, tmp_path, SAMPLE).is_new


def test_what_was_written_must_mean_the_same(tmp_path: Path) -> None:
    """Whoever wrote it, then or now, and in whatever form."""
    store = MemoryStore()
    submit(store, tmp_path, SAMPLE)
    with pytest.raises(SpecConflictError, match=r"\(other: sampling\.num_steps\)"):
        submit(store, tmp_path, SAMPLE.replace("50", "51"))
    with pytest.raises(SpecConflictError, match="priority"):
        submit(store, tmp_path, SAMPLE, "priority=7")
    assert not submit(store, tmp_path, SAMPLE.replace("50", "5e1"), "priority=50").is_new
    change_stored(store, "priority", value=40)
    with pytest.raises(SpecConflictError, match="priority"):
        submit(store, tmp_path, SAMPLE, "priority=50")


def test_a_field_that_is_written_no_more_is_another_job_if_it_meant_another(tmp_path: Path) -> None:
    """What one file says and the other leaves to the default differs unless it is the default."""
    store = MemoryStore()
    submit(store, tmp_path, SAMPLE, "priority=7")
    with pytest.raises(SpecConflictError, match="priority"):
        submit(store, tmp_path, SAMPLE)


def test_a_spec_of_an_earlier_version_is_compared_whole(tmp_path: Path) -> None:
    """Nobody knows any more what of it was written."""
    store = MemoryStore()
    submit(store, tmp_path, SAMPLE)
    key = JobPaths("mine").spec
    spec = json.loads(store.get(key).body)
    del spec["asked"]
    store.put(key, json.dumps(spec).encode())
    assert not submit(store, tmp_path, SAMPLE).is_new
    change_stored(store, "priority", value=40)
    with pytest.raises(SpecConflictError, match="priority"):
        submit(store, tmp_path, SAMPLE)


def test_jobs_of_a_group_are_compared_as_they_were_written(tmp_path: Path) -> None:
    """Each step by itself, and how they hang together."""
    store = MemoryStore()
    submit(store, tmp_path, PIPELINE)
    change_stored(store, "children", 1, "spec", "sampling", "variance", value="fixed_large")
    assert not submit(store, tmp_path, PIPELINE).is_new
    with pytest.raises(SpecConflictError, match=r"sample\.num_samples"):
        submit(store, tmp_path, PIPELINE.replace("128", "1024"))
    with pytest.raises(SpecConflictError, match="ties"):
        submit(store, tmp_path, PIPELINE.replace("model: {step: train}",
                                                 "after: train, model: {job: x}"))  # fmt: skip


def test_variables_stand_beside_the_spec_and_not_in_it(tmp_path: Path) -> None:
    """Which ones a file named is told; the job is what they came to."""
    store = MemoryStore()
    submit(store, tmp_path, PIPELINE)
    submitted = read_submitted(RecordStore(store), "mine")
    assert submitted.asked is not None
    assert submitted.asked.variables == {"STEPS": "5"}
    assert read_submission(RecordStore(store), "mine") == submitted.spec


def test_submitting_twice_with_smoke_tests_is_submitting_once(tmp_path: Path) -> None:
    """Also their specs are those of the version that put them."""
    store, file = MemoryStore(), tmp_path / "job.yaml"
    file.write_text(SAMPLE)
    job_file = load_job_file(file)
    assert submit_with_smoke(store, job_file.spec, "mine", job_file.asked).is_new
    assert not submit_with_smoke(store, job_file.spec, "mine", job_file.asked).is_new
