"""The words in which a job file's mistakes are told."""

from pathlib import Path

import pytest

from orchestrator.errors import BadInputError
from orchestrator.specs.files import load_submission
from orchestrator.specs.train import TrainJob

TRAIN = """\
kind: train
name: digits
dataset:
  source: digits
model:
  channels: 64
training:
  num_steps: 2000
  learning_rate: 2e-4
  global_batch_size: 128
resources:
  num_workers: 1
"""


def load(folder: Path, text: str, *overrides: str) -> TrainJob:
    """Load a training's file."""
    file = folder / "job.yaml"
    file.write_text(text)
    spec = load_submission(file, overrides)
    assert isinstance(spec, TrainJob)
    return spec


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("  channels: 64", "", ":5: model must have keys of its own; it is empty: fill it in"),
        ("  source: digits", "  source: 7", ':4: dataset.source must be a text, and 7 reads as'),
        ("  source: digits", "  source:", ":4: dataset.source must be a text; it is empty"),
        ("  source: digits", "  source: [a]", ":4: dataset.source must be a text, not ['a']"),
        ("name: digits", "name: 123", ':2: name must be a text, and 123 reads as a number: quote'),
        ("name: digits", "preemptible: yes\nname: d", (":2: preemptible must be true or false, not "
         "'yes': in YAML 1.2 write true")),
        ("channels: 64", "attention_resolutions: 4", (":6: model.attention_resolutions must be a "
         "list, as [1, 2], not 4")),
        ("rate: 2e-4", 'rate: "1e-4"', (":9: training.learning_rate must be a number, not the text "
         "'1e-4': take the quotes off")),
        ("rate: 2e-4", "rate: fast", ":9: training.learning_rate must be a number, not 'fast'"),
        ("  learning_rate: 2e-4", "  precision: fp16", "precision must be 'auto', 'bf16' or"),
        ("  learning_rate: 2e-4", "  optimizer: Adam", "did you mean adam?"),
        ("num_workers: 1", "num_workers: 3", ":12: training.global_batch_size (128) must be a"),
        ("learning_rate", "lr", ":9: unknown key training.lr; that is training.learning_rate here"),
        ("  learning_rate", "  epochs", "training.num_steps counts optimizer steps: epochs x"),
        ("global_batch_size", "batch_size", (":10: unknown key training.batch_size; that is "
         "training.global_batch_size here")),
        ("name: digits", "num_steps: 5\nname: d", (":2: unknown key num_steps; it is "
         "training.num_steps here")),
        ("channels: 64", "image_size: 32", "images keep the size that they have"),
        ("num_steps: 2000", "num_steps: 1e23", ":8: training.num_steps must be 999,999,999 at"),
        ("name: digits", f"name: {'n' * 64}", ":2: name has 64 characters; 63 at most"),
        ("name: digits", "name: digits\npriority: 101", ":3: priority must be 100 at most, not"),
        ("source: digits", "source: digits\n  holdout_fraction: 1", (":5: dataset.holdout_fraction "
         "must be less than 1")),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_words_of_a_job_file(
    tmp_path: Path, right: str, wrong: str, told: str
) -> None:
    """Nobody who writes YAML needs to know Python's types, or this project's names by heart."""
    assert right in TRAIN
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, TRAIN.replace(right, wrong))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_may_have_an_exponent(tmp_path: Path) -> None:
    """A million is 1e6 in every other file; half a step is none."""
    spec = load(
        tmp_path, TRAIN.replace("2000", "1e6").replace("num_workers: 1", "num_workers: 1e0")
    )
    assert (spec.training.num_steps, spec.num_workers.min) == (1_000_000, 1)
    assert spec.spec_hash == load(tmp_path, TRAIN.replace("2000", "1000000")).spec_hash
    with pytest.raises(BadInputError, match=r"a whole number, not 1\.5"):
        load(tmp_path, TRAIN.replace("2000", "1.5"))


def test_a_number_for_a_text_by_set_says_how_to_quote_it_in_a_shell(tmp_path: Path) -> None:
    """The shell takes one pair of quotes away."""
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, TRAIN, "name=123")
    assert str(caught.value).endswith("""quote it: "123" in the shell: --set 'name="123"'""")
    assert load(tmp_path, TRAIN, 'name="123"').name == "123"


def test_names_may_be_as_long_as_a_setting_needs(tmp_path: Path) -> None:
    """`cifar10-cosine-bf16-lr2e4` says what it is."""
    name = "cifar10-cosine-bf16-lr2e4"
    assert load(tmp_path, TRAIN.replace("name: digits", f"name: {name}")).name == name
