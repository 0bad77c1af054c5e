"""A data set that is not there is told with its line, before anything is started."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.artifacts.datasets.refs import describe
from orchestrator.client.datasets import with_dataset
from orchestrator.client.prepare import check_sources
from orchestrator.errors import BadInputError, DatasetError
from orchestrator.specs.evaluate import EvaluateJob, SetRef
from orchestrator.specs.files import load_job_file, load_submission
from orchestrator.specs.sections import DatasetSpec
from orchestrator.specs.train import TrainJob
from tests.support.fakes import MemoryStore

TRAIN = """kind: train
name: t
dataset: {source: SOURCE}
training: {num_steps: 5}
"""
PIPELINE = """kind: pipeline
name: p
steps:
  train:
    kind: train
    dataset:
      source: SOURCE
    training: {num_steps: 5}
"""
SWEEP = """kind: sweep
name: s
matrix: {training.seed: [0, 1]}
job:
  kind: train
  dataset: {source: SOURCE}
  training: {num_steps: 5}
"""


@pytest.mark.parametrize(("text", "line"), [(TRAIN, 3), (PIPELINE, 7), (SWEEP, 6)])
@pytest.mark.parametrize(
    ("source", "told"),
    [("digitz", "did you mean 'digits'"), ("./none.npz", "there is no file or folder")],
)
def test_a_source_that_is_not_there_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, source: str, told: str
) -> None:
    """People look at the line that is named, and nothing may run for the sake of a typo."""
    file = tmp_path / "job.yaml"
    file.write_text(text.replace("SOURCE", source))
    with pytest.raises(BadInputError) as caught:
        check_sources(load_job_file(file), tmp_path)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert told in str(caught.value)


def test_an_override_is_named_instead_of_a_line(tmp_path: Path) -> None:
    """The file is right; what was typed is not."""
    file = tmp_path / "job.yaml"
    file.write_text(TRAIN.replace("SOURCE", "digits"))
    overrides = ("dataset.source=./none.npz",)
    with pytest.raises(BadInputError, match=r"--set 'dataset.source=./none.npz': "):
        check_sources(load_job_file(file, overrides), tmp_path)


def test_images_that_are_not_those_pinned_are_refused(tmp_path: Path) -> None:
    """Somebody changed the folder: a training on other images is another experiment."""
    np.save(tmp_path / "set.npy", np.zeros((4, 8, 8, 1), np.uint8))
    file, store = tmp_path / "job.yaml", MemoryStore()
    file.write_text(TRAIN.replace("SOURCE", "set.npy"))
    job = load_submission(file)
    assert isinstance(job, TrainJob)
    pinned = with_dataset(job, tmp_path, store)
    assert with_dataset(pinned, tmp_path, store) == pinned
    assert isinstance(pinned, TrainJob)
    np.save(tmp_path / "set.npy", np.ones((5, 8, 8, 1), np.uint8))
    with pytest.raises(DatasetError, match=f"pins {pinned.dataset.sha256}"):
        with_dataset(pinned, tmp_path, store)


def test_an_evaluation_knows_classes_where_the_images_have_some(tmp_path: Path) -> None:
    """It counts samples by class; images without labels are compared all the same."""
    store, found = MemoryStore(), []
    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8, 1)
    told: dict[str, Any] = {"labels": np.array([0, 1, 1, 0])}
    for name, arrays in (("told", told), ("plain", dict[str, Any]())):
        np.savez(tmp_path / f"{name}.npz", images=pixels, **arrays)
        spec = EvaluateJob(
            kind="evaluate",
            name="quality",
            of=SetRef(job="s"),
            dataset=DatasetSpec(source=f"{name}.npz"),
        )
        pinned = with_dataset(spec, tmp_path, store).dataset_input
        assert pinned is not None
        found.append(describe(store, str(pinned.sha256)))
    assert [ref.class_counts for ref in found] == [(2, 2), ()]
    assert found[0].images == found[1].images  # so features are computed once
