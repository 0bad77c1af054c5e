"""A VAE's bound is that of a chain with T = 1."""

import pytest
import torch
from torch import Tensor

from ddpm.baselines.vae import VAE, vae_bits_per_dim, vae_losses
from ddpm.config import ONE_STEP, UNetConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.likelihood import bits_per_dim

SHAPE = (1, 4, 4)
CONFIG = UNetConfig(family="vae", channels=8, channel_multipliers=(1, 2), latent_size=16)


class NoisingVAE(VAE):
    """A VAE whose encoder is the forward process: nothing of it is learned."""

    def q_of(self, x_start: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(x_1 | x_0)."""
        kept = GaussianDiffusion(ONE_STEP).schedule.alphas_cumprod[0]
        mean = x_start.flatten(1) * kept.sqrt().float()
        return mean, torch.full_like(mean, float(torch.log1p(-kept)))


def images(count: int) -> Tensor:
    """Return images of 256 values."""
    pixels = torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(0))
    return pixels / 127.5 - 1.0


def test_the_bound_is_that_of_a_chain_of_one_step() -> None:
    """Two derivations, Kingma & Welling's and Ho et al.'s, of what must be one number."""
    model = NoisingVAE(CONFIG, SHAPE, seed=3)
    diffusion = GaussianDiffusion(ONE_STEP)
    with torch.no_grad():
        model.log_variance.fill_(diffusion.schedule.betas[0].log())
    indices = torch.tensor([7, 0, 12])
    with torch.no_grad():
        chain = bits_per_dim(
            model, diffusion, images(3), indices, seed=5, clip_denoised=False, num_timesteps=None
        )
    own = vae_bits_per_dim(model, images(3), indices, seed=5)
    torch.testing.assert_close(own.prior, chain.prior, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(own.decoder, chain.decoder, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(own.total, chain.total, rtol=1e-6, atol=1e-7)
    assert chain.terms.shape == (3, 0)
    assert torch.equal(chain.denoising, torch.zeros(3, dtype=torch.float64))


def test_the_loss_of_a_step_is_the_bound() -> None:
    """What is lowered is what is reported, so the two can be compared on one curve."""
    model = VAE(CONFIG, SHAPE)
    losses = vae_losses(model, images(64), 0, 3, torch.arange(64))
    bound = vae_bits_per_dim(model, images(64), torch.arange(64), seed=0).total
    assert float(losses.detach().mean()) == pytest.approx(
        float(bound.mean()), rel=0.05
    )  # other draws
    assert losses.dtype == torch.float32


def test_real_numbers_have_no_last_part() -> None:
    """They have no bins that a mass could lie in; the rest stands as it is."""
    model = VAE(CONFIG, SHAPE)
    indices = torch.arange(2)
    real = vae_bits_per_dim(model, images(2), indices, seed=0, num_levels=None)
    assert torch.equal(real.decoder, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(real.prior, vae_bits_per_dim(model, images(2), indices, seed=0).prior)
