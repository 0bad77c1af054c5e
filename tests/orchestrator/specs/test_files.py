"""Pipelines and sweeps as people write them, and as they get them wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import BadInputError
from orchestrator.lifecycle.retry import RetryPolicy
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob, child_id, stored_submission
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.train import TrainJob

PIPELINE = """\
kind: pipeline
name: chain
queue: nightly
steps:
  train:
    kind: train
    dataset: {source: digits}
    diffusion: {num_timesteps: 100}
    training: {num_steps: 5}
  sample:
    kind: sample
    model: {step: train, weights: model}
    priority: 7
    num_samples: 8
    sampling: {num_steps: 50}
  again:
    kind: train
    after: [sample]
    dataset: {source: digits}
    training: {num_steps: 5}
"""
SWEEP = """\
kind: sweep
name: rates
max_concurrent: 2
matrix:
  training.learning_rate: [1e-4, 1e-3]
  training:
    seed:
      - 0
      - 1
job:
  kind: train
  dataset: {source: digits}
  training: {num_steps: 5, seed: 9}
"""


def load(folder: Path, text: str, *overrides: str) -> GroupJob:
    """Load a job file's text."""
    file = folder / "job.yaml"
    file.write_text(text)
    group = load_submission(file, overrides)
    assert isinstance(group, GroupJob)
    return group


def test_steps_become_whole_jobs_that_name_each_other(tmp_path: Path) -> None:
    """Everything that will ever run stands in the one spec that is put."""
    group = load(tmp_path, PIPELINE).with_ids("chain-20261122-153012-k7q2")
    train, sample, again = group.children
    assert [child.spec.name for child in group.children] == ["chain-train", "chain-sample",
                                                             "chain-again"]  # fmt: skip
    assert [child.needs for child in group.children] == [(), ("train",), ("sample",)]
    assert train.job_id == "chain-train-20261122-153012-k7q2"
    assert isinstance(sample.spec, SampleJob)
    assert (sample.spec.model.job, sample.spec.model.weights) == (train.job_id, "model")
    assert (train.spec.queue, again.spec.queue) == ("nightly", "nightly")
    assert (train.spec.priority, sample.spec.priority) == (50, 7)
    assert isinstance(train.spec, TrainJob)
    assert train.spec.tracking.registered_model == "chain"


def test_a_sweep_is_one_job_for_each_combination(tmp_path: Path) -> None:
    """In the order of the file, the last key running fastest."""
    group = load(tmp_path, SWEEP)
    assert [child.settings for child in group.children] == [
        {"training.learning_rate": rate, "training.seed": seed}
        for rate in (1e-4, 1e-3)
        for seed in (0, 1)
    ]
    last = group.children[-1]
    assert isinstance(last.spec, TrainJob)
    assert (last.step, last.spec.name, last.spec.training.seed) == ("004", "rates-004", 1)
    assert group.max_concurrent == 2


def test_a_group_reads_back_from_the_store_as_it_was_submitted(tmp_path: Path) -> None:
    """The same id with the same spec is the same group, also after years."""
    for text in (PIPELINE, SWEEP):
        group = load(tmp_path, text).with_ids("mine")
        again = stored_submission(group.model_dump(mode="json"))
        assert again == group
        assert isinstance(again, GroupJob)
        assert again.spec_hash == group.spec_hash


def test_ids_of_children_are_a_function_of_the_groups_id() -> None:
    """Whoever creates a child creates the same one, of an id that a key can hold."""
    assert child_id("mine", "chain", "train") == "mine-train"
    made = "chain-20261122-153012-k7q2"
    assert child_id(made, "chain", "train") == "chain-train-20261122-153012-k7q2"
    for group_id in ("x" * 63, made):
        ids = {child_id(group_id, "x" * 60, step) for step in ("aaaa", "aaab")}
        assert len(ids) == 2
        assert max(len(one) for one in ids) <= 63


WRONG_PIPELINES = [
    ("step: train", "step: tran", ":12: no step is called tran; did you mean train?"),
    ("step: train", "step: sample", ":12: step sample cannot need itself"),
    ("[sample]", "[trian]", ":18: no step is called trian; did you mean train?"),
    ("kind: train\n    after", "kind: sample\n    model: {step: sample}\n    after",
     ":18: model.step: sample is no train step and leaves no model"),
    ("step: train", "step: train, job: x", ":12: model: give step train or a job, not both"),
    ("num_steps: 50", "num_steps: 500", ":15: sampling.num_steps is 500, but the model of step"),
    ("training: {num_steps: 5}", "training: {num_stps: 5}", ":9: unknown key training.num_stps"),
    ("kind: sample", "kind: smple", "likelihood or prepare, not 'smple'"),
    ("kind: train\n    dataset", "kind: train\n    after: again\n    dataset",
     "steps wait for each other in a circle"),
    ("  train:\n", f"  {'a' * 60}:\n", "its job's name chain-aaaa"),
    ("  train:\n", "  Train:\n", ":4: steps must be of a-z, 0-9 and single hyphens"),
    ("queue:", "qeue:", ":3: unknown key qeue; did you mean queue?"),
    ("priority: 7", "name: x", ":13: a job of a group takes its name from the group"),
    ("kind: pipeline", "kind: pipelin", ":1: kind must be train, sample, evaluate, likelihood,"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "message"), WRONG_PIPELINES)
def test_a_mistake_in_a_step_is_one_line_that_names_the_place(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    """Nothing of a pipeline may fail after the night in which its first step ran."""
    assert right in PIPELINE
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, PIPELINE.replace(right, wrong))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG_SWEEPS = [
    ("learning_rate:", "learning_rat:", ":5: unknown key training.learning_rat; did you mean"),
    ("1e-4", "-1", ":5: training.learning_rate must be greater than 0, not -1.0 (run 001: "),
    ("- 1\n", "- x\n", ":9: training.seed must be a whole number, not 'x' (run 002: "),
    ("1e-4", "1e-3", ":5: matrix key training.learning_rate: 0.001 is given twice"),
    ("[1e-4, 1e-3]", "[]", ":5: matrix key training.learning_rate: give a list of values"),
    ("[1e-4, 1e-3]", "3", ":5: matrix key training.learning_rate: give a list of values"),
    ("training.learning_rate:", "training.seed:", ":7: matrix key training.seed is given twice"),
    ("training.learning_rate:", "dataset.source.x:", ":5: matrix key dataset.source.x: source"),
    ("training.learning_rate:", "name:", ":5: matrix key name: that cannot differ"),
    ("training.learning_rate: [1e-4, 1e-3]\n  training:\n    seed:\n      - 0\n      - 1\n", "{}\n",
     ":4: matrix must not be empty"),
    ("[1e-4, 1e-3]", str(list(range(1, 200))), ":4: matrix has 398 combinations; give 1 to 256"),
    ("name: rates", f"name: {'r' * 60}", ":2: name: a sweep's has 59 characters at most"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "message"), WRONG_SWEEPS)
def test_a_mistake_in_a_matrix_is_one_line_that_names_the_place(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    """The value stands in the matrix, so that is where the message points."""
    assert right in SWEEP
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, SWEEP.replace(right, wrong))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_reaches_into_steps_and_matrices(tmp_path: Path) -> None:
    """A try-out of a night's pipeline is the same file with smaller numbers."""
    chain = load(tmp_path, PIPELINE, "steps.train.training.num_steps=50", "priority=3")
    train = chain.children[0].spec
    assert isinstance(train, TrainJob)
    assert (train.training.num_steps, train.priority) == (50, 3)
    sweep = load(tmp_path, SWEEP, "matrix.training.seed=[1, 2, 3]", "job.training.num_steps=7")
    assert len(sweep.children) == 6
    with pytest.raises(BadInputError, match=r"--set 'steps\.trai.*did you mean train"):
        load(tmp_path, PIPELINE, "steps.trai.training.num_steps=50")
    with pytest.raises(BadInputError, match=r"--set 'matrix\.training\.seed=\[-1\.5\]'"):
        load(tmp_path, SWEEP, "matrix.training.seed=[-1.5]")


def test_a_part_of_a_retry_policy_keeps_the_other_defaults_of_its_cause(tmp_path: Path) -> None:
    """As in a job's own file."""
    file = tmp_path / "chain.yaml"
    retry = "retry: {storage_unavailable: {backoff_s: 21.0}}\n"
    file.write_text(PIPELINE.replace("steps:\n", f"{retry}steps:\n", 1))
    group = load_submission(file)
    assert isinstance(group, GroupJob)
    budget, default = group.children[0].spec.retry.storage_unavailable, RetryPolicy()
    assert budget == replace(default.storage_unavailable, backoff_s=21.0)
