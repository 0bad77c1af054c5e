"""A job that names a preparation waits for its end, and reads what came of it, once and for all."""

from dataclasses import replace
from pathlib import Path

import pytest

from ddpm.config import TrainingConfig, UNetConfig
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.attempts.attempt import Attempt
from orchestrator.client.deletion import find_deletable
from orchestrator.client.prepare import prepared
from orchestrator.client.references import references_to
from orchestrator.client.stored_datasets import references_to_dataset
from orchestrator.client.submit import submit_job
from orchestrator.controller.image_jobs import settle_dataset
from orchestrator.errors import BadInputError, OrchestratorError
from orchestrator.jobs.prepared_sets import PREPARED_SET, PreparedSet, read_prepared
from orchestrator.jobs.submissions import read_spec
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.files import load_job_file, load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.prepare import PrepareJob
from orchestrator.specs.sections import DatasetSpec, SourceSpec
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from tests.orchestrator.controller.test_image_jobs import evaluation, sample_job
from tests.support.world import World

PIPELINE = """
kind: pipeline
name: p
steps:
  data: {kind: prepare, dataset: {source: /data/photos}}
  train:
    kind: train
    dataset: {step: data, holdout_fraction: 0.1}
    training: {num_steps: 10}
"""


def prepare_job() -> PrepareJob:
    """Return a preparation."""
    return PrepareJob(kind="prepare", name="data", dataset=SourceSpec(source="digits"))


def reader(model: UNetConfig | None = None, job: str = "data") -> TrainJob:
    """Return a training on what a job prepares."""
    small = UNetConfig(channels=32, channel_multipliers=(1, 2), attention_resolutions=(4,))
    return TrainJob(
        kind="train",
        name="reader",
        dataset=DatasetSpec(job=job),
        model=model or small,
        training=TrainingConfig(num_steps=10),
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An orchestrator with a preparation at work and a training that waits for it."""
    world = World()
    submit_job(world.store, prepare_job(), "data")
    submit_job(world.store, reader(), "reader")
    world.step()
    world.begin("data")
    world.step()
    return world


def end_preparation(world: World, cache: Path) -> DatasetRef:
    """Have the preparation succeed; return its set, with labels."""
    ref = ingest("digits", world.store, cache, labels="auto")
    told = PreparedSet(sha256=ref.images, labelled_sha256=ref.sha256, source="digits")
    world.store.put(JobPaths("data").dataset, PREPARED_SET.encode(told))
    world.end("data", Outcome(succeeded=True, progress=ref.num_images))
    world.step(3)
    return ref


def test_a_training_waits_for_the_set_and_then_reads_it(world: World, tmp_path: Path) -> None:
    """Everybody who asks for its spec from then on is told which images they are."""
    assert world.state("reader") == "QUEUED"
    assert world.record("reader").message == "waits for the end of job data"
    ref = end_preparation(world, tmp_path)
    assert world.state("reader") == "STARTING"
    for spec in (
        read_spec(world.records, "reader"),
        Attempt.open(world.store, "reader", 1).spec,
    ):
        assert spec.dataset_input is not None
        assert (spec.dataset_input.sha256, spec.dataset_input.source) == (ref.images, "digits")
    assert "job reader" in references_to_dataset(world.store, replace(ref, sha256=ref.images))


def test_the_set_stays_though_another_preparation_takes_the_name(
    world: World, tmp_path: Path
) -> None:
    """What was decided for a job is decided: another attempt must read the same images."""
    ref = end_preparation(world, tmp_path)
    other = PreparedSet(sha256="0" * 64, source="elsewhere")
    world.store.put(JobPaths("data").dataset, PREPARED_SET.encode(other))
    world.controller = world.new_controller()
    world.step()
    spec = read_spec(world.records, "reader")
    assert spec.dataset_input is not None
    assert spec.dataset_input.sha256 == ref.images


def test_a_model_with_classes_reads_the_labels_too(tmp_path: Path) -> None:
    """One preparation serves both: images are stored once."""
    world = World()
    submit_job(world.store, prepare_job(), "data")
    model = UNetConfig(
        channels=32, channel_multipliers=(1, 2), attention_resolutions=(4,), num_classes="auto"
    )
    submit_job(world.store, reader(model), "reader")
    world.step()
    world.begin("data")
    world.step()
    ref = end_preparation(world, tmp_path)
    spec = read_spec(world.records, "reader")
    assert spec.dataset_input is not None
    assert spec.dataset_input.sha256 == ref.sha256


def test_a_model_that_cannot_take_the_set_fails_before_it_starts(tmp_path: Path) -> None:
    """At submit nobody knew the size of the images."""
    world = World()
    submit_job(world.store, prepare_job(), "data")
    submit_job(world.store, reader(UNetConfig(channel_multipliers=(1, 1, 1, 1, 1))), "reader")
    world.step()
    world.begin("data")
    world.step()
    end_preparation(world, tmp_path)
    record = world.record("reader")
    assert (record.state, record.reason, record.attempt) == ("FAILED", "BAD_INPUT", 0)
    assert "8" in record.message


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ("nobody", "dataset.job: no job is called 'nobody'"),
        ("reader", "reader is a train job and prepares no set"),
        ("data", "data ended as CANCELLED without a data set"),
    ],
)
def test_what_leaves_no_set_is_told_at_submit_and_in_the_queue(
    job: str, told: str, world: World, tmp_path: Path
) -> None:
    """A name with a slip would else wait for ever."""
    if job == "data":
        world.end("data", None)
        record = world.record("data")
        current = world.records.read("data")
        world.records.write(current, replace(record, state=JobState.CANCELLED))
    file = tmp_path / "job.yaml"
    file.write_text(
        f"kind: train\nname: late\ndataset: {{job: {job}}}\ntraining: {{num_steps: 10}}\n"
    )
    with pytest.raises(BadInputError, match=told) as caught:
        prepared(load_job_file(file), tmp_path, world.store)
    assert f"{file}:3: " in str(caught.value)
    submit_job(world.store, reader(job=job), "late")
    world.step(2)
    assert world.state("late") == "FAILED"
    assert told in world.record("late").message


def test_a_step_reads_what_another_one_prepares(tmp_path: Path) -> None:
    """The grammar is that of models: `{step: NAME}`, and the step waits for it."""
    file = tmp_path / "job.yaml"
    file.write_text(PIPELINE)
    group = load_submission(file)
    assert isinstance(group, GroupJob)
    train = group.with_ids("p-20260101-000000-abcd").children[1]
    assert (train.needs, train.image_steps) == (("data",), {"dataset": "data"})
    assert train.spec.dataset_input is not None
    assert train.spec.dataset_input.job == "p-data-20260101-000000-abcd"
    assert train.spec.dataset_input.holdout_fraction == 0.1


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("step: data,", "step: dota,", ":8: no step is called dota; did you mean data?"),
        ("step: data,", "step: train,", ":8: step train cannot need itself"),
        ("step: data,", "step: data, source: digits,", ":8: .*step data or a source, not both"),
        ("step: data,", "step: data, image_size: 8,", ":8: .*image_size goes with source"),
        ("step: data,", "", ":8: .*exactly one of source and job must be given"),
        ("kind: prepare, ", "kind: train, training: {num_steps: 1}, ", "data prepares no data set"),
    ],
)
def test_a_step_that_reads_wrongly_is_told_with_its_line(
    right: str, wrong: str, told: str, tmp_path: Path
) -> None:
    """Nothing of a pipeline may fail after the night in which its first step ran."""
    file = tmp_path / "job.yaml"
    assert right in PIPELINE
    file.write_text(PIPELINE.replace(right, wrong))
    with pytest.raises(BadInputError, match=told):
        load_submission(file)


def test_a_preparation_and_its_set_stay_while_a_queued_job_names_them(tmp_path: Path) -> None:
    """It would fail hours later; once it is found which set is read, that alone is held."""
    world = World()
    submit_job(world.store, prepare_job(), "data")
    world.step()
    world.begin("data")
    world.step()
    ref = end_preparation(world, tmp_path)
    assert references_to(world.store, ["data"]) == []
    submit_job(world.store, reader(), "reader")
    images = replace(ref, sha256=ref.images)
    assert references_to(world.store, ["data"]) == ["the training reader"]
    with pytest.raises(OrchestratorError, match="the training reader refers to job data"):
        find_deletable(world.store, "data")
    assert "job reader" in references_to_dataset(world.store, images)
    world.step(3)
    assert references_to(world.store, ["data"]) == []
    assert "job reader" in references_to_dataset(world.store, images)


def test_a_set_of_samples_stays_while_a_queued_evaluation_names_it() -> None:
    """Deleting it failed the evaluation."""
    world = World()
    drawn = submit_job(world.store, sample_job("t")).job_id
    asked = submit_job(world.store, evaluation(drawn, "t")).job_id
    assert references_to(world.store, [drawn]) == [f"the evaluation {asked}"]


@pytest.mark.parametrize("first", ["reader-smoke", "reader"])
def test_a_job_and_its_smoke_test_read_the_same_set(
    first: str, world: World, tmp_path: Path
) -> None:
    """A later preparation may take the name between the two."""
    ref = end_preparation(world, tmp_path)
    world.store.delete(JobPaths("reader").dataset)  # as before the orchestrator looked
    names = {"reader-smoke": "reader", "reader": ""}
    assert settle_dataset(world.store, first, reader(), "data", names[first]) is None
    other = PreparedSet(sha256="0" * 64, source="elsewhere")
    world.store.put(JobPaths("data").dataset, PREPARED_SET.encode(other))
    for job, smoke_of in names.items():
        assert settle_dataset(world.store, job, reader(), "data", smoke_of) is None
        found = read_prepared(world.store, job)
        assert found is not None
        assert found.sha256 == ref.images
