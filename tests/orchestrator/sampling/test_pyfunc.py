"""A checkpoint as MLflow loads it: images by `predict`, with signature, example and environment."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.config import ConfigError, SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.checkpoint import load_model
from orchestrator.artifacts.checkpoints.mlflow_files import EXAMPLE, write_mlflow_files
from orchestrator.errors import BadInputError
from orchestrator.sampling.pyfunc import FIELDS
from tests.support.foreign_models import write_small_checkpoint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    from mlflow.models import Model

FEW = {"num_samples": 3, "num_steps": 2, "seed": 5}


def loaded(folder: Path, **model: Any) -> Any:
    """Return a small model as MLflow loads it."""
    write_small_checkpoint(folder, **model)
    write_mlflow_files(folder, (3, 8, 8))
    return mlflow.pyfunc.load_model(str(folder))


def test_predict_draws_the_images_of_the_sampler(tmp_path: Path) -> None:
    """Image k is a function of the settings here, too: fewer images are the first of more."""
    model = loaded(tmp_path)
    images = model.predict(FEW)
    network, info = load_model(tmp_path)
    config = SamplingConfig(num_steps=2, seed=5, microbatch_size=16, variance="fixed_small")
    diffusion = GaussianDiffusion(info.diffusion_config)
    plain = to_uint8(draw(network, diffusion, config, torch.arange(16), (3, 8, 8)))
    assert (images.shape, images.dtype) == ((3, 8, 8, 3), np.uint8)
    assert abs(images.astype(int) - plain[:3].numpy()).max() <= 2  # AMX rounds to bfloat16
    assert np.array_equal(model.predict({**FEW, "num_samples": 2}), images[:2])
    assert not np.array_equal(model.predict({**FEW, "seed": 6}), images)


def test_what_a_model_says_of_itself_is_enough_to_use_it(tmp_path: Path) -> None:
    """The example of the registry's page works as it stands, all 100 timesteps by default."""
    model = loaded(tmp_path)
    signature = model.metadata.signature
    assert set(signature.inputs.input_names()) == set(FIELDS)
    assert signature.inputs.required_input_names() == ["num_samples"]
    example = Model.load(str(tmp_path)).load_input_example(str(tmp_path))
    assert example == EXAMPLE
    needed = mlflow.pyfunc.get_model_dependencies(str(tmp_path))
    assert "ddpmctl==" in Path(needed).read_text()
    one = model.predict({**example, "num_samples": 1, "microbatch_size": 1})
    assert one.shape == (1, 8, 8, 3)


def test_labels_are_asked_for_by_name(tmp_path: Path) -> None:
    """MLflow's columns hold no lists, so names stand in a text."""
    model = loaded(tmp_path, num_classes=3)
    asked = {**FEW, "num_steps": 8}  # two steps of an untrained model are all black or white
    owls = model.predict({**asked, "labels": "owl", "guidance_scale": 2.0})
    assert np.array_equal(owls, model.predict({**asked, "labels": "2", "guidance_scale": 2.0}))
    assert not np.array_equal(owls, model.predict({**asked, "labels": "cat, dog"}))


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ({"num_samples": 0}, BadInputError, "num_samples must be a whole number above 0, not 0"),
        ({"num_steps": 101}, ConfigError, "num_steps must be at most 100"),
        ({"labels": "cat"}, ConfigError, "labels must be left out: the model knows no classes"),
        ({"method": "best"}, BadInputError, "method must be one of ddpm, ddim"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, wrong: dict[str, Any], error: type[Exception], told: str
) -> None:
    """In the words of job files."""
    with pytest.raises(error, match=told):
        loaded(tmp_path).predict({**FEW, **wrong})


def test_two_rows_are_two_questions(tmp_path: Path) -> None:
    """Their images may be of other numbers, and would not tell which is whose."""
    import pandas as pd

    model = loaded(tmp_path)
    assert model.predict(pd.DataFrame([FEW])).shape == (3, 8, 8, 3)
    with pytest.raises(BadInputError, match="one row asks for images, not 2"):
        model.predict(pd.DataFrame([FEW, FEW]))
