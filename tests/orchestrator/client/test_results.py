"""Of a group at work what has ended is shown, and what has not is named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ddpm.config import SamplingConfig
from orchestrator.client.results import Evaluations, read_evaluations, settings_of
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.measuring import EvaluationSpec, MetricsSpec
from orchestrator.specs.sections import CheckpointSpec
from orchestrator.store.keys import JobPaths
from tests.support.evaluations import put_evaluation
from tests.support.fakes import MemoryStore
from tests.support.sample_sets import put_set
from tests.support.world import train_job

GROUP = """
kind: pipeline
name: p
steps:
  draw: {kind: sample, model: {job: t}, num_samples: 8}
  one: {kind: evaluate, of: {step: draw}, dataset: {source: digits}}
  two: {kind: evaluate, of: {step: draw}, dataset: {source: digits}}
  three: {kind: evaluate, of: {step: draw}, dataset: {source: digits}}
"""


@pytest.fixture
def group(tmp_path: Path) -> tuple[MemoryStore, GroupJob]:
    """A pipeline that was submitted, none of whose jobs were made."""
    file = tmp_path / "p.yaml"
    file.write_text(GROUP)
    loaded = load_submission(file)
    assert isinstance(loaded, GroupJob)
    group, store = loaded.with_ids("p"), MemoryStore()
    store.put(JobPaths("p").spec, group.model_dump_json().encode())
    return store, group


def put_result(store: MemoryStore, job_id: str) -> None:
    """Put an evaluation that has ended, and the set that it is of."""
    put_set(store, f"set-of-{job_id}", np.zeros((8, 4, 4, 1), np.uint8), 4)
    put_evaluation(store, job_id, f"set-of-{job_id}", 0.01)


def put_state(store: MemoryStore, job_id: str, state: JobState, message: str = "") -> None:
    """Put an evaluation that found nothing yet."""
    put_evaluation(store, job_id, "s", 0.0)
    store.delete(JobPaths(job_id).evaluation)
    records = RecordStore(store)
    current = records.read(job_id)
    records.write(current, dataclasses.replace(current.record, state=state, message=message))


def test_what_has_ended_is_shown_and_what_has_not_is_named(
    group: tuple[MemoryStore, GroupJob],
) -> None:
    """A pipeline of an hour has something to show after ten minutes."""
    store, asked = group
    one, two, three = (child.job_id for child in asked.children[1:])
    put_result(store, one)
    put_state(store, two, JobState.FAILED, "the disk is full")
    found = read_evaluations(store, ["p"])
    assert [row.job_id for row in found.rows] == [one]
    assert found.missing_text == (
        f"2 of 3 evaluations have no result: FAILED: the disk is full {two}; not begun {three}"
    )
    for job_id in (two, three):
        put_result(store, job_id)
    assert [row.job_id for row in read_evaluations(store, ["p"]).rows] == [one, two, three]
    assert read_evaluations(store, ["p"]).missing_text == ""


def test_several_names_of_which_one_has_no_result(group: tuple[MemoryStore, GroupJob]) -> None:
    """Whoever names them one by one sees the same as of a group."""
    store, _ = group
    put_result(store, "e1")
    put_state(store, "e2", JobState.RUNNING)
    found = read_evaluations(store, ["e1", "e2"])
    assert isinstance(found, Evaluations)
    assert [row.job_id for row in found.rows] == ["e1"]
    assert found.missing_text == "1 of 2 evaluations has no result: RUNNING e2"


def test_nothing_at_all_is_an_error(group: tuple[MemoryStore, GroupJob]) -> None:
    """A table without lines tells nothing; the reason does."""
    store, asked = group
    first, second = (child.job_id for child in asked.children[1:3])
    with pytest.raises(BadInputError) as caught:
        read_evaluations(store, ["p"])
    assert str(caught.value) == (
        f"there is no result to show: not begun {first}, {second} and 1 more"
    )


def test_a_training_stands_for_the_evaluations_of_its_checkpoints() -> None:
    """They are what its curve is made of; one that evaluates none has nothing to compare."""
    store = MemoryStore()
    metrics = MetricsSpec(every_steps=4, num_samples=50)
    spec = train_job(
        "t",
        checkpoints=CheckpointSpec(every_steps=2),
        evaluation=EvaluationSpec(metrics=metrics),
    )
    store.put(JobPaths("t").spec, spec.model_dump_json().encode())
    put_result(store, "t-at-4")
    put_state(store, "t-at-8", JobState.QUEUED)
    found = read_evaluations(store, ["t"])
    assert [row.job_id for row in found.rows] == ["t-at-4"]
    assert found.missing_text == (
        "2 of 3 evaluations have no result: QUEUED t-at-8; not begun t-at-10"
    )
    store.put(JobPaths("u").spec, train_job("u").model_dump_json().encode())
    with pytest.raises(BadInputError, match=r"u is a train job; give .* evaluation.metrics"):
        read_evaluations(store, ["u"])


def test_a_family_without_a_reverse_chain_has_no_settings_of_one() -> None:
    """A comparison said of a GAN's set that it was drawn by ancestral sampling."""
    asked = dataclasses.asdict(SamplingConfig(num_steps=1))
    assert settings_of("ddpm", asked) == {"family": "ddpm", **asked}
    gan = ["family", "num_steps", "labels", "seed", "microbatch_size", "precision", "compile"]
    assert list(settings_of("gan", asked)) == gan
