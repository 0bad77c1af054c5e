"""Jobs that a program asks for are checked as files are, and remember what was written."""

import dataclasses
from pathlib import Path

import pytest

from ddpm.config import TrainingConfig, UNetConfig
from orchestrator.api.requests import SampleJob, TrainJob, job_file
from orchestrator.errors import BadInputError
from orchestrator.specs.sections import DatasetSpec

DIGITS = {"source": "digits"}


def test_sections_may_be_mappings_or_objects_and_mean_the_same() -> None:
    """Whoever has a TrainingConfig at hand should not have to take it apart."""
    plain = TrainJob(name="a", dataset=DIGITS, training={"num_steps": 10})  # type: ignore[arg-type]
    typed = TrainJob(
        name="a", dataset=DatasetSpec(source="digits"), training=TrainingConfig(num_steps=10)
    )
    assert plain.written == typed.written
    assert plain.training == typed.training == TrainingConfig(num_steps=10)
    assert job_file(plain, {})[0].spec == job_file(typed, {})[0].spec


def test_only_what_was_given_counts_as_written() -> None:
    """Defaults of a later version must not make the same program another job."""
    job = TrainJob(
        name="a",
        dataset=DIGITS,  # type: ignore[arg-type]
        training=TrainingConfig(num_steps=10),
        model=UNetConfig(channel_multipliers=(1, 2)),
    )
    (part,) = job_file(job, {})[0].asked.parts.values()
    assert part["training"] == {"num_steps": 10}
    assert part["model"] == {"channel_multipliers": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trainin": {}}, "TrainJob: unknown key trainin; did you mean training?"),
        ({"training": {"lr": 1}}, "training.lr; that is training.learning_rate here"),
        ({"training": {"num_steps": "10"}}, "training.num_steps"),
        ({"dataset": {1, 2}}, "a field of a job cannot be set"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(changes: dict[str, object], told: str) -> None:
    """The words are those of a job file; a program's author reads no pydantic."""
    fields = {"name": "a", "dataset": DIGITS, "training": {"num_steps": 10}, **changes}
    with pytest.raises(BadInputError) as caught:
        TrainJob(**fields)  # type: ignore[arg-type]
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_that_was_written_and_cannot_be_is_refused_and_a_default_is_not() -> None:
    """As in a file: what somebody wrote is not changed in silence."""
    fields = {"name": "a", "dataset": DIGITS, "training": {"num_steps": 10}}
    few = {**fields, "diffusion": {"num_timesteps": 40}}
    assert job_file(TrainJob(**few), {})[0].warnings  # type: ignore[arg-type]
    wrote = {**few, "tracking": {"sample_steps": 50}}
    with pytest.raises(BadInputError, match="ask for 40 at most"):
        job_file(TrainJob(**wrote), {})  # type: ignore[arg-type]


def test_files_and_mappings_are_taken_for_what_has_no_class(tmp_path: Path) -> None:
    """Pipelines and sweeps are written as files, or as what a file holds."""
    train = {"kind": "train", "dataset": DIGITS, "training": {"num_steps": 10}}
    sweep = {"kind": "sweep", "name": "s", "matrix": {"training.seed": (0, 1)}, "job": train}
    file, _ = job_file(sweep, {})
    assert len(list(file.jobs())) == 2
    path = tmp_path / "job.yaml"
    path.write_text("kind: train\nname: b\ndataset: {source: digits}\ntraining: {num_steps: 1}\n")
    file, folder = job_file(str(path), {})
    assert file.spec.name == "b"
    assert folder == tmp_path


def test_a_sample_job_is_a_job_of_the_store() -> None:
    """What the api builds is what everything below expects; no second kind of spec."""
    job = SampleJob(name="s", model={"job": "digits"}, num_samples=64)  # type: ignore[arg-type]
    assert (job.total, job.model.job) == (64, "digits")
    assert dataclasses.asdict(job.sampling)["num_steps"] > 0
