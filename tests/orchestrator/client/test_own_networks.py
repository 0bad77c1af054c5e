"""A network of another package in a job file: each fault is one line with its place."""

import json
from pathlib import Path

import pytest

from ddpm.config import OwnConfig
from orchestrator.client.plan import plan_of
from orchestrator.client.plan_forms import TrainingPlan
from orchestrator.client.prepare import prepared
from orchestrator.errors import BadInputError
from orchestrator.specs.kinds import stored_job
from orchestrator.specs.train import TrainJob
from tests.orchestrator.client.test_prepare import load
from tests.support.fakes import MemoryStore
from tests.support.own_networks import forget, install, install_example

TRAIN = """\
kind: train
name: t
dataset: {source: set.npy, labels: none}
model:
  network: dit
  width: 16
  depth: 1
training: {num_steps: 10, global_batch_size: 2}
evaluation: {num_images: 0}
"""
WRONG_SHAPE = """
import torch
from dataclasses import dataclass
from ddpm.network.own import OwnNetwork

@dataclass(frozen=True)
class Config:
    scale: float = 1.0

class Net(torch.nn.Conv2d):
    def __init__(self, config, shape):
        super().__init__(shape.image_shape[0], shape.image_shape[0], 3)
    def forward(self, x_t, t, labels):
        return super().forward(x_t)

NETWORK = OwnNetwork(config=Config, build=Net)
"""


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_example(tmp_path / "site")
    install(tmp_path / "site", WRONG_SHAPE, {"wrong": "brought:NETWORK", "gone": "nowhere:IT"})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    forget()


def told(folder: Path, old: str, new: str) -> str:
    """Return why a job file with a change is refused, without the folder."""
    with pytest.raises(BadInputError) as caught:
        prepared(load(folder, TRAIN.replace(old, new)), folder, MemoryStore())
    return str(caught.value).removeprefix(f"{folder}/")


def test_the_job_holds_every_setting_and_the_plan_counts_the_weights(tmp_path: Path) -> None:
    """A later version of the package may have other defaults."""
    store = MemoryStore()
    spec = prepared(load(tmp_path, TRAIN), tmp_path, store).spec
    assert isinstance(spec, TrainJob)
    stored = json.loads(spec.model_dump_json())["model"]
    assert stored == {
        "network": "dit",
        "num_classes": 0,
        "width": 16,
        "depth": 1,
        "dropout": 0.0,
        "num_heads": 4,
        "patch_size": 2,
    }
    assert stored_job(spec.model_dump(mode="json")) == spec
    plan = plan_of(spec, store)
    assert isinstance(plan, TrainingPlan)
    assert plan.parameters is not None
    assert plan.parameters > 1000


def test_a_stored_job_is_read_where_the_package_is_not_installed() -> None:
    """The orchestrator and `list` run on other machines than the workers."""
    value = {
        "kind": "train",
        "name": "t",
        "dataset": {"source": "digits"},
        "model": {"network": "nobody-has-this", "num_classes": "auto", "size": 3},
        "training": {"num_steps": 1},
    }
    spec = stored_job(value)
    assert isinstance(spec, TrainJob)
    assert isinstance(spec.model, OwnConfig)
    assert spec.model.settings == {"size": 3}
    assert spec.reads_labels


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("dit", "dti", "job.yaml:5: model.network must be one that is installed (dit), not 'dti'"),
        ("dit", "gone", "job.yaml:5: model.network must be one that loads (nowhere:IT: No module"),
        ("dit", "[1]", "job.yaml:5: model.network must be the name of an installed network, not"),
        ("width: 16", "widht: 16", "job.yaml:6: unknown key model.widht; did you mean width?"),
        ("width: 16", "width: wide", "job.yaml:6: model.width must be a whole number, not 'wide'"),
        ("width: 16", "width: 1.5", "job.yaml:6: model.width must be a whole number, not 1.5"),
        ("width: 16", "width: 12", "job.yaml:6: model.width must be a multiple of 8, not 12"),
        ("width: 16", "patch_size: 3", "job.yaml:6: model.patch_size must be a divisor of 8 and 8"),
        ("width: 16", "num_classes: -1", "job.yaml:6: model.num_classes must be auto, or a number"),
        ("width: 16", "num_classes: x", "job.yaml:6: model.num_classes must be auto, or a whole"),
        ("width: 16", "num_classes: 3", "job.yaml:6: model.num_classes must be 0, since the data"),
        (
            "network: dit\n  width: 16\n  depth: 1",
            "network: wrong",
            "job.yaml:5: model.network must be one that gives (2, 1, 8, 8) for (2, 1, 8, 8) images",
        ),
        (
            "training: {",
            "training: {activation_checkpointing: true, ",
            "job.yaml:8: training.activation_checkpointing must be left out with model.network",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    """As with a field of ours."""
    assert told(tmp_path, old, new).startswith(line)


def test_whole_numbers_may_be_written_as_others_are(tmp_path: Path) -> None:
    """YAML has no 16.0 that is a whole number, and ours takes 1e1."""
    text = TRAIN.replace("width: 16", "width: 1.6e1")
    spec = prepared(load(tmp_path, text), tmp_path, MemoryStore()).spec
    assert isinstance(spec, TrainJob)
    assert isinstance(spec.model, OwnConfig)
    assert spec.model.settings["width"] == 16
