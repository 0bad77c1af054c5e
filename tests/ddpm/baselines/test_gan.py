"""Each half of a GAN's gradient is that of its own loss."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F

from ddpm.baselines.gan import GAN, gan_losses
from ddpm.config import UNetConfig
from ddpm.process.noise import Stream, normals

SHAPE = (1, 4, 4)
CONFIG = UNetConfig(family="gan", channels=8, channel_multipliers=(1, 2), latent_size=4)


def test_each_network_goes_down_its_own_loss() -> None:
    """A critic that helped the generator, or the other way round, would be no adversary."""
    model = GAN(CONFIG, SHAPE, seed=1)
    reals = torch.rand((6, *SHAPE), generator=torch.Generator().manual_seed(0)) * 2 - 1
    positions = torch.arange(6)
    gan_losses(model, reals, 2, 9, positions).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    latents = normals(2, Stream.TRAINING_NOISE, 9, positions, (4,))
    own = [p for name, p in model.named_parameters() if name.startswith("decoder.")]
    wanted = torch.autograd.grad(F.softplus(-model.critic(model.decoder(latents))).sum(), own)
    for (name, _), grad in zip(model.decoder.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(found[f"decoder.{name}"], grad)

    fakes = model.decoder(latents).detach()
    critic: Mapping[str, torch.Tensor] = dict(model.critic.named_parameters())

    def loss(step: float, direction: dict[str, torch.Tensor]) -> float:
        moved = {name: p + step * direction[name] for name, p in critic.items()}
        x = reals.clone().requires_grad_(True)
        told = torch.func.functional_call(model.critic, moved, (x,))
        (slope,) = torch.autograd.grad(told.sum(), x)
        on_fakes = torch.func.functional_call(model.critic, moved, (fakes,))
        total = F.softplus(on_fakes).sum() + F.softplus(-told).sum() + 0.5 * slope.square().sum()
        return float(total.detach())

    model.double()
    reals, fakes = reals.double(), fakes.double()
    critic = {name: p.detach() for name, p in model.critic.named_parameters()}
    generator = torch.Generator().manual_seed(4)
    direction = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for name, p in critic.items()
    }
    slope = sum(float((found[f"critic.{n}"].double() * d).sum()) for n, d in direction.items())
    measured = (loss(1e-4, direction) - loss(-1e-4, direction)) / 2e-4
    assert measured == pytest.approx(slope, rel=0.01)
