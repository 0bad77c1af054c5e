"""The families of models: for each what is built, and what a step lowers.

All else is one for all. A `TrainState` is begun from a seed and holds one vector of weights, their
average and Adam's moments; a step is a function of (state, its number, the images); images are
drawn by `ddpm.process.sampling` from (weights, seed, their numbers), in T steps or in one; and a
checkpoint has the same files. So whoever trains, resumes, draws and proves knows no family.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from ddpm.baselines.gan import GAN, gan_losses
from ddpm.baselines.vae import VAE, vae_losses
from ddpm.config import ONE_STEP, DiffusionConfig, NetworkConfig, OwnConfig, UNetConfig
from ddpm.network.build import build_network
from ddpm.network.generative import GenerativeNetwork
from ddpm.network.own_model import OwnModel

Build = Callable[[UNetConfig, DiffusionConfig, tuple[int, int, int], int], GenerativeNetwork]
Losses = Callable[[GenerativeNetwork, Tensor, int, int | Tensor, Tensor], Tensor]
"""Takes network, x_start, seed, step and positions; returns (B,) float32, the loss of each."""


@dataclass(frozen=True)
class ModelFamily:
    """What sets one family apart.

    Attributes:
        build: Returns the network with weights drawn from a seed.
        losses: What a step lowers; None for the loss of the diffusion.
        has_bound: Whether -log p(x_0) of an image has a variational bound.
        adam_betas: Of the averages that Adam keeps.
    """

    build: Build
    losses: Losses | None
    has_bound: bool = True
    adam_betas: tuple[float, float] = (0.9, 0.999)


def _build_ddpm(
    config: UNetConfig, diffusion: DiffusionConfig, image_shape: tuple[int, int, int], seed: int
) -> GenerativeNetwork:
    return build_network(config, diffusion, image_shape, seed=seed)


def _build_vae(
    config: UNetConfig, diffusion: DiffusionConfig, image_shape: tuple[int, int, int], seed: int
) -> GenerativeNetwork:
    _check_one_step(config, diffusion)
    return VAE(config, image_shape, seed=seed)


def _build_gan(
    config: UNetConfig, diffusion: DiffusionConfig, image_shape: tuple[int, int, int], seed: int
) -> GenerativeNetwork:
    _check_one_step(config, diffusion)
    return GAN(config, image_shape, seed=seed)


def _check_one_step(config: UNetConfig, diffusion: DiffusionConfig) -> None:
    if diffusion != ONE_STEP:
        raise ValueError(f"a {config.family} draws in one step: its diffusion is {ONE_STEP}")


FAMILIES = {
    "ddpm": ModelFamily(build=_build_ddpm, losses=None),
    "vae": ModelFamily(build=_build_vae, losses=cast(Losses, vae_losses)),
    "gan": ModelFamily(
        build=_build_gan, losses=cast(Losses, gan_losses), has_bound=False, adam_betas=(0.0, 0.99)
    ),
}


def build_model(
    config: NetworkConfig,
    diffusion: DiffusionConfig,
    image_shape: tuple[int, int, int],
    *,
    seed: int = 0,
) -> GenerativeNetwork:
    """Return the network of a configuration's family, with weights drawn from `seed` alone.

    That of another package is a DDPM's: what its output means is the diffusion's to say.

    Args:
        config: Family and sizes, or the network of another package and its settings.
        diffusion: What its output stands for.
        image_shape: (C, H, W).
        seed: Of the initial weights.

    Raises:
        ConfigError: The other package is not installed here, or refuses its settings.
    """
    if isinstance(config, OwnConfig):
        return OwnModel(config, diffusion, image_shape, seed=seed)
    return FAMILIES[config.family].build(config, diffusion, image_shape, seed)
