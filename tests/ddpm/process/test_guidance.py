"""Guidance: one batch of both branches, and the convention that 1 is none."""

import pytest
import torch
from torch import Tensor

from ddpm.config import DiffusionConfig, SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.guidance import guided

LABELS = torch.tensor([0, 1])
NULL = 2


def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """Return the image times 1 + its label, so that each branch can be told."""
    return x_t * (1.0 + labels.view(-1, 1, 1, 1))


def output(scale: float, t: int = 50, **settings: object) -> Tensor:
    """Return the guided output for images of ones."""
    config = SamplingConfig(guidance_scale=scale, **settings)  # type: ignore[arg-type]
    diffusion = GaussianDiffusion(DiffusionConfig(num_timesteps=101))
    denoise = guided(network, diffusion, config, LABELS, NULL)
    return denoise(torch.ones(2, 1, 1, 1), torch.full((2,), t)).flatten()


@pytest.mark.parametrize(
    ("scale", "wanted"), [(0.0, [3.0, 3.0]), (1.0, [1.0, 2.0]), (2.0, [-1.0, 1.0])]
)
def test_the_scale_is_that_of_the_stated_convention(scale: float, wanted: list[float]) -> None:
    """Papers differ by 1; who copies a number must know which is meant."""
    assert output(scale).tolist() == wanted


@pytest.mark.parametrize(("t", "inside"), [(19, False), (20, True), (80, True), (81, False)])
def test_outside_of_the_interval_there_is_no_guidance(t: int, inside: bool) -> None:
    """Where much noise is left guidance only takes away variety."""
    found = output(2.0, t, guidance_interval=(0.2, 0.8)).tolist()
    assert found == ([-1.0, 1.0] if inside else [1.0, 2.0])


def test_a_learned_variance_is_that_of_the_label() -> None:
    """Guiding it would leave the two bounds that it lies between."""
    diffusion = GaussianDiffusion(DiffusionConfig(num_timesteps=101, variance="learned"))
    denoise = guided(network, diffusion, SamplingConfig(guidance_scale=2.0), LABELS, NULL)
    found = denoise(torch.ones(2, 2, 1, 1), torch.full((2,), 50))
    assert found[:, 0].flatten().tolist() == [-1.0, 1.0]
    assert found[:, 1].flatten().tolist() == [1.0, 2.0]


def test_without_guidance_the_network_is_asked_once() -> None:
    """Guidance costs twice as much, and 1 must not."""
    sizes = []

    def listen(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        sizes.append(len(x_t))
        return x_t

    diffusion = GaussianDiffusion(DiffusionConfig(num_timesteps=101))
    for scale in (1.0, 3.0):
        denoise = guided(listen, diffusion, SamplingConfig(guidance_scale=scale), LABELS, NULL)
        denoise(torch.ones(2, 1, 1, 1), torch.full((2,), 50))
    assert sizes == [2, 4]
