"""A variational autoencoder, and its bound: that of a chain with T = 1 whose noising is learned.

With z for x_1, q(z | x_0) for the forward process and p(x_0 | z) for the only reverse step, the
bound of `ddpm.process.likelihood` is L_T + L_0, and that is Kingma & Welling 2014, eq. 3. Its
decoder has one variance for all pixels, which is learned with the weights (Rybkin et al. 2021).
"""

import math

import torch
from torch import Tensor, nn

from ddpm.baselines.layers import Decoder, Encoder, LatentNetwork, draw_weights
from ddpm.config import UNetConfig
from ddpm.process.code_length import (
    NUM_LEVELS,
    discretized_gaussian_log_likelihood,
    gaussian_divergence,
)
from ddpm.process.likelihood import BitsPerDimension
from ddpm.process.noise import Stream, normals

_FIRST_LOG_VARIANCE = -2.0
_LOWEST_LOG_VARIANCE = -12.0


class VAE(LatentNetwork):
    """An encoder of images and a decoder of latent vectors.

    Args:
        config: The sizes.
        image_shape: (C, H, W).
        seed: Of the initial weights; the global generator is left as it is.

    Attributes:
        encoder: Gives mean and log variance of q(z | x_0), one behind the other.
        log_variance: () float32, that of p(x_0 | z), for every pixel.
    """

    def __init__(
        self, config: UNetConfig, image_shape: tuple[int, int, int], *, seed: int = 0
    ) -> None:
        super().__init__(config, image_shape)
        with torch.random.fork_rng(devices=[]):  # torch draws weights that are drawn anew below
            self.encoder = Encoder(config, image_shape, 2 * config.latent_size)
            self.decoder = Decoder(config, image_shape)
        self.log_variance = nn.Parameter(torch.tensor(_FIRST_LOG_VARIANCE))
        draw_weights(self, seed)

    def q_of(self, x_start: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z | x_0): (B, latent_size) float32 each."""
        mean, log_variance = self.encoder(x_start).chunk(2, dim=1)
        return mean, log_variance


def negative_elbo(
    model: VAE, x_start: Tensor, noise: Tensor, num_levels: int | None = NUM_LEVELS
) -> tuple[Tensor, Tensor]:
    """Return the two parts of the bound on -log p(x_0), with one draw of z from q(z | x_0).

    Args:
        model: Its `q_of`, its answer to latent vectors and its variance are asked.
        x_start: (B, C, H, W) float32, one of `num_levels` values from -1 to 1 in each pixel.
        noise: (B, latent_size) float32, standard normal.
        num_levels: How many values a pixel may have; None for real numbers, whose L_0 is left out.

    Returns:
        KL(q(z | x_0) || N(0, I)), which is L_T, and -log p(x_0 | z), which is L_0: (B,) float64
        each, in bits per dimension.
    """
    mean, log_variance = model.q_of(x_start)
    latents = mean + torch.exp(0.5 * log_variance) * noise
    standard = torch.zeros((), dtype=torch.float64, device=mean.device)
    divergence = gaussian_divergence(log_variance.double(), standard, mean.double())
    num_values = math.prod(x_start.shape[1:])
    prior = divergence.sum(dim=1) / (num_values * math.log(2.0))
    if num_levels is None:
        return prior, torch.zeros_like(prior)
    pixel_scale = torch.exp(0.5 * model.log_variance.double().clamp(min=_LOWEST_LOG_VARIANCE))
    images = model.decoder(latents)
    log_likelihood = discretized_gaussian_log_likelihood(x_start, images, pixel_scale, num_levels)
    return prior, -log_likelihood.flatten(1).mean(dim=1) / math.log(2.0)


def vae_losses(
    model: VAE, x_start: Tensor, seed: int, step: int | Tensor, positions: Tensor
) -> Tensor:
    """Return the loss of each image of a training step: the bound, (B,) float32.

    Args:
        model: The network.
        x_start: (B, C, H, W) float32 in [-1, 1].
        seed: Of the training.
        step: Steps taken before this one.
        positions: (B,) int64, the images' places in the global batch.
    """
    shape = (model.config.latent_size,)
    noise = normals(seed, Stream.TRAINING_NOISE, step, positions, shape)
    prior, decoder = negative_elbo(model, x_start, noise)
    return (prior + decoder).float()


@torch.no_grad()
def vae_bits_per_dim(
    model: VAE,
    x_start: Tensor,
    indices: Tensor,
    *,
    seed: int,
    num_levels: int | None = NUM_LEVELS,
) -> BitsPerDimension:
    """Compute the bound of images; the noise of image k is a function of (seed, k).

    Args:
        model: The network.
        x_start: As `negative_elbo` takes it.
        indices: (B,) int64, the images' numbers.
        seed: A 64-bit integer.
        num_levels: As `negative_elbo` takes it.

    Returns:
        The bound and its terms: there is no L_{t-1} between L_T and L_0.
    """
    shape = (model.config.latent_size,)
    noise = normals(seed, Stream.EVALUATION_NOISE, indices, 0, shape)
    prior, decoder = negative_elbo(model, x_start, noise, num_levels)
    return BitsPerDimension(
        prior=prior,
        decoder=decoder,
        timesteps=indices.new_zeros((len(indices), 0)),
        terms=prior.new_zeros((len(indices), 0)),
        stratum_sizes=indices.new_zeros(0),
    )
