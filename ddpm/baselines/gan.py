"""A generative adversarial network: the non-saturating loss, and R1 on real images.

Generator and critic move in the same step, each down its own loss (Mescheder et al. 2018 show that
with R1 this converges where without it need not). So a step is one gradient, as of any family.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ddpm.baselines.layers import Decoder, Encoder, LatentNetwork, draw_weights
from ddpm.config import UNetConfig
from ddpm.process.noise import Stream, normals

_R1_GAMMA = 1.0


class GAN(LatentNetwork):
    """A generator of images and their critic.

    Args:
        config: The sizes.
        image_shape: (C, H, W).
        seed: Of the initial weights; the global generator is left as it is.

    Attributes:
        critic: Gives one number an image, the higher the more real it looks.
    """

    def __init__(
        self, config: UNetConfig, image_shape: tuple[int, int, int], *, seed: int = 0
    ) -> None:
        super().__init__(config, image_shape)
        with torch.random.fork_rng(devices=[]):  # torch draws weights that are drawn anew below
            self.decoder = Decoder(config, image_shape)
            self.critic = Encoder(config, image_shape, 1, normalized=False)
        draw_weights(self, seed)


def gan_losses(
    model: GAN, x_start: Tensor, seed: int, step: int | Tensor, positions: Tensor
) -> Tensor:
    """Return the loss of each image of a training step: the generator's plus the critic's.

    The generator's part, softplus(-D(G(z))), has a gradient for the generator alone, and the
    critic's, softplus(D(G(z))) + softplus(-D(x)) + gamma / 2 |dD/dx|^2, for the critic alone.
    Goodfellow et al. 2014, section 3; Mescheder et al. 2018, eq. 9.

    Args:
        model: The networks.
        x_start: (B, C, H, W) float32 in [-1, 1].
        seed: Of the training.
        step: Steps taken before this one.
        positions: (B,) int64, the images' places in the global batch.

    Returns:
        (B,) float32.
    """
    shape = (model.config.latent_size,)
    fakes = model.decoder(normals(seed, Stream.TRAINING_NOISE, step, positions, shape))
    fixed = {name: value.detach() for name, value in model.critic.named_parameters()}
    generator = F.softplus(-functional_call(model.critic, fixed, (fakes,)))
    reals = x_start.detach().requires_grad_()
    told_of_reals = model.critic(reals)
    critic = F.softplus(model.critic(fakes.detach())) + F.softplus(-told_of_reals)
    (slope,) = torch.autograd.grad(told_of_reals.sum(), reals, create_graph=True)
    r1 = slope.square().flatten(1).sum(dim=1)
    losses: Tensor = (generator + critic).squeeze(1) + 0.5 * _R1_GAMMA * r1
    return losses
