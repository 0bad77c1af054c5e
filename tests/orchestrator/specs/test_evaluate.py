"""Evaluations in files: what they name, alone and as a step."""

from pathlib import Path

import pytest

from orchestrator.errors import BadInputError
from orchestrator.specs.evaluate import EvaluateJob
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob

PIPELINE = """
kind: pipeline
name: p
steps:
  train: {kind: train, dataset: {source: digits}, training: {num_steps: 10}}
  sample: {kind: sample, model: {step: train}, num_samples: 64}
  evaluate:
    kind: evaluate
    of: {step: sample}
    against: {step: train}
"""


def load(folder: Path, text: str) -> object:
    """Read a job file."""
    path = folder / "job.yaml"
    path.write_text(text)
    return load_submission(path)


def test_a_step_evaluates_the_set_of_another_against_what_was_trained_on(tmp_path: Path) -> None:
    """The ids of those jobs are known when the pipeline gets its own."""
    group = load(tmp_path, PIPELINE)
    assert isinstance(group, GroupJob)
    child = group.with_ids("p-20260101-000000-abcd").children[2]
    assert child.needs == ("sample", "train")
    assert isinstance(child.spec, EvaluateJob)
    assert child.spec.image_jobs == (
        "p-sample-20260101-000000-abcd",
        "p-train-20260101-000000-abcd",
    )


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("of: {step: sample}", "of: {step: train}", ":9: of.step: train leaves no images"),
        ("of: {step: sample}", "of: {step: smaple}", ":9: no step is called smaple; did you mean"),
        ("against: {step: train}", "k: 3", "give one of against (a job) and dataset"),
        ("{step: sample}", "{step: sample, job: x}", "give step sample or a job, not both"),
        ("of: {step: sample}", "of: {step: sample}\n    extractor: {name: dinov2}", "TorchScript"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    """At submit, not after the images were drawn."""
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, PIPELINE.replace(right, wrong))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
