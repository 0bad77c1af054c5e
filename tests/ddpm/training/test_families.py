"""DDPM, VAE and GAN are trained, resumed, saved and drawn from by the same code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.baselines.sizes import count_latent_parameters
from ddpm.compute import ComputeDecision
from ddpm.config import (
    ONE_STEP,
    ConfigError,
    DiffusionConfig,
    Family,
    SamplingConfig,
    TrainingConfig,
    UNetConfig,
)
from ddpm.network.generative import GenerativeNetwork
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import draw
from ddpm.training.checkpoint import load_model, load_state, save_state
from ddpm.training.data import ImageDataset
from ddpm.training.families import FAMILIES, build_model
from ddpm.training.loop import TrainState, train_steps

IMAGES = ImageDataset(
    np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8), np.arange(10)
)
ALL = sorted(FAMILIES)
LATENT: list[Family] = ["gan", "vae"]


def state_of(family: Family, **training: Any) -> TrainState:
    """Return a small state that took no step."""
    config = TrainingConfig(
        **{"num_steps": 6, "global_batch_size": 4, "learning_rate": 1e-2, **training}
    )
    is_unet = family == "ddpm"
    return TrainState(
        unet_config=UNetConfig(family=family, channels=8, channel_multipliers=(1, 2)),
        diffusion_config=DiffusionConfig(num_timesteps=50) if is_unet else ONE_STEP,
        config=config,
        image_shape=(1, 8, 8),
        compute=ComputeDecision(),
    )


def train(state: TrainState, until_step: int) -> list[float]:
    """Train, and return the losses."""
    return [m.loss for m in train_steps(state, IMAGES, until_step=until_step)]


def drawn(model: GenerativeNetwork, diffusion: DiffusionConfig, numbers: list[int]) -> torch.Tensor:
    """Draw images of some numbers in one step."""
    with torch.no_grad():
        return draw(
            model,
            GaussianDiffusion(diffusion),
            SamplingConfig(num_steps=1, seed=4),
            torch.tensor(numbers),
            (1, 8, 8),
        )


@pytest.mark.parametrize("family", ALL)
def test_resumed_training_is_the_same_to_the_bit(family: Family, tmp_path: Path) -> None:
    """The promise that any training has, whatever is trained."""
    whole, halved, resumed = state_of(family), state_of(family), state_of(family)
    losses = train(whole, 6)
    first = train(halved, 3)
    save_state(halved, tmp_path)
    load_state(resumed, tmp_path)
    assert first + train(resumed, 6) == losses
    assert torch.equal(resumed.parameters.values, whole.parameters.values)
    assert torch.equal(resumed.ema, whole.ema)


@pytest.mark.parametrize("family", ALL)
def test_an_image_depends_on_weights_seed_and_number_alone(family: Family, tmp_path: Path) -> None:
    """So that a fleet of any size draws one set."""
    state = state_of(family)
    train(state, 2)
    save_state(state, tmp_path)
    model, info = load_model(tmp_path)
    together = drawn(model, info.diffusion_config, [0, 1, 2, 3])
    elsewhere = drawn(model, info.diffusion_config, [2, 9, 3, 7])
    assert torch.equal(together[[2, 3]], elsewhere[[0, 2]])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("family", LATENT)
def test_gradient_in_parts_is_that_of_the_whole(family: Family) -> None:
    """Workers, and microbatches, share a batch; its size is what counts."""
    whole, parts = state_of(family), state_of(family, microbatch_size=1)
    train(whole, 1)
    train(parts, 1)
    torch.testing.assert_close(
        parts.parameters.parameter_grads, whole.parameters.parameter_grads, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("family", LATENT)
def test_weights_come_from_the_seed(family: Family) -> None:
    """And torch's own generator is left as it was found."""
    before = torch.random.get_rng_state()
    first, same, other = (state_of(family, seed=seed).parameters.values for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 8)])
def test_the_count_is_that_of_the_networks(family: Family, shape: tuple[int, int, int]) -> None:
    """A dry run must not promise another size than the job will have."""
    config = UNetConfig(family=family, channels=8, channel_multipliers=(1, 2, 3), latent_size=20)
    model = build_model(config, ONE_STEP, shape)
    assert count_latent_parameters(config, shape) == sum(p.numel() for p in model.parameters())


def test_a_vae_lowers_its_bound() -> None:
    """The loss of a family that does not learn would go unseen in all other tests."""
    state = state_of("vae", num_steps=40)
    losses = train(state, 40)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"family": "vae", "num_res_blocks": 1}, "num_res_blocks must be left out"),
        ({"family": "gan", "num_classes": 10}, "num_classes must be left out"),
        ({"latent_size": 16}, "latent_size must be left out"),
        ({"family": "vae", "latent_size": 0}, "latent_size must be greater than 0"),
    ],
)
def test_sizes_that_nothing_reads_are_refused(sizes: dict[str, Any], told: str) -> None:
    """Whoever writes one believes that it does something."""
    with pytest.raises(ConfigError, match=told):
        UNetConfig(**sizes)


def test_a_latent_vector_is_no_longer_than_an_image() -> None:
    """It is taken from the noise that an image begins with."""
    with pytest.raises(ConfigError, match="latent_size must be at most 16"):
        UNetConfig(family="vae", channel_multipliers=(1,)).check_image_shape((1, 4, 4))
