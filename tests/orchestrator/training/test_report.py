"""What a training shows of its network on the way."""

import functools
import io
from typing import Any

import pytest
import torch
from PIL import Image

from ddpm.config import SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.loop import TrainState
from orchestrator.artifacts.images import image_grid
from orchestrator.specs.kinds import stored_job
from orchestrator.specs.train import TrainJob
from orchestrator.training.report import AveragedModel, bound_text, log_samples
from tests.support.small_training import small_state


class Shown:
    """Keeps the pictures that a training logs."""

    def __init__(self) -> None:
        self.pngs: list[bytes] = []

    def log_image(self, path: str, png: bytes, step: int) -> None:
        """Keep a picture."""
        assert (path, step) == ("samples/step-000000.png", 0)
        self.pngs.append(png)


def labelled_state(num_classes: int) -> TrainState:
    """Return a network with some classes, whose averaged weights are all drawn."""
    sizes = {"channel_multipliers": (1, 8), "num_classes": num_classes}
    state = small_state(unet=sizes)
    generator = torch.Generator().manual_seed(2)
    state.ema.copy_(torch.randn(state.ema.shape, generator=generator) * 0.3)
    return state


def grid_of(num_classes: int, num_images: int) -> bytes:
    """Return the grid of a network with some classes, whose weights are all drawn."""
    value = {
        "kind": "train",
        "name": "t",
        "dataset": {"source": "digits"},
        "training": {"num_steps": 1},
        "tracking": {"num_sample_images": num_images, "sample_steps": 8},
    }
    spec = stored_job(value)
    assert isinstance(spec, TrainJob)
    shown: Any = Shown()
    log_samples(spec, labelled_state(num_classes), shown)
    (png,) = shown.pngs
    return bytes(png)


@pytest.mark.parametrize(("num_images", "rows", "columns"), [(8, 3, 2), (3, 3, 1), (2, 2, 1)])
def test_each_row_of_the_grid_is_a_class(num_images: int, rows: int, columns: int) -> None:
    """Whoever trains with labels wants to see whether each class can be read."""
    shape = Image.open(io.BytesIO(grid_of(3, num_images))).size
    one = Image.open(io.BytesIO(image_grid(torch.zeros(1, 8, 8, 1).byte().numpy()))).size
    cell = one[0] - 2  # behind each cell, and before the first, there are two pixels of line
    assert shape == (cell * columns + 2, cell * rows + 2)


def test_rows_are_told_their_class() -> None:
    """A grid of no class in rows would look as if the network had learned no labels."""
    state, model = labelled_state(3), AveragedModel(labelled_state(3))
    sampler = SamplingConfig(method="ddim", num_steps=8)
    drawn = []
    for labels in (torch.arange(3), None):
        images = draw(
            functools.partial(model, labels=labels),
            GaussianDiffusion(state.diffusion_config),
            sampler,
            torch.arange(3),
            (1, 8, 8),
        )
        drawn.append(image_grid(to_uint8(images).numpy(), columns=1))
    assert grid_of(3, 3) == drawn[0]
    assert drawn[0] != drawn[1]


def test_the_log_tells_the_bound_as_people_read_it() -> None:
    """It showed the names and all digits of a Python dict."""
    means = {
        "holdout/bpd": 4.571234567,
        "holdout/bpd_se": 0.0481,
        "holdout/bpd_prior": 0.5,
        "holdout/bpd_denoising": 4.071234567,
        "holdout/bpd_denoising_se": 0.05,
    }
    told = "4.571 ± 0.048 bits/dim (prior 0.5, denoising 4.071 ± 0.05)"
    assert bound_text(means) == told
