"""Classifier-free guidance: the network is asked with a label and without, in one batch.

The convention is output = without + scale (with - without), so that a scale of 1 is the network
with its label as it is, and 0 the one without. (Ho & Salimans 2021 write w = scale - 1.) Every
prediction is a linear function of x_0 at one x_t, so guiding any of them guides x_0 alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm.config import SamplingConfig
from ddpm.process.gaussian import Denoiser, GaussianDiffusion

LabelledNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes x_t (B, C, H, W) float32, t and labels (B,) int64; returns what the model predicts."""


def guided(
    network: LabelledNetwork,
    diffusion: GaussianDiffusion,
    config: SamplingConfig,
    labels: Tensor,
    null_label: int,
) -> Denoiser:
    """Return a network that is conditioned on its labels, guided as the sampler says.

    Args:
        network: Takes labels. Where there is guidance, it is called with 2 B images.
        diffusion: The model's.
        config: Its `guidance_scale` and `guidance_interval`.
        labels: (B,) int64, of the images that will be drawn.
        null_label: What stands for no class.
    """
    if config.guidance_scale == 1.0:
        return lambda x_t, t: network(x_t, t, labels)
    labels_and_null = torch.cat([labels, torch.full_like(labels, null_label)])
    low, high = config.guidance_interval or (0.0, 1.0)
    last = diffusion.num_timesteps - 1

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        output = network(torch.cat([x_t, x_t]), torch.cat([t, t]), labels_and_null)
        conditional, unconditional = output.to(torch.float32).chunk(2)
        is_inside = (t >= low * last) & (t <= high * last)
        scale = torch.where(is_inside, config.guidance_scale, 1.0).view(-1, 1, 1, 1)
        prediction = diffusion.predicted(unconditional)
        prediction = prediction + scale * (diffusion.predicted(conditional) - prediction)
        if not diffusion.has_learned_variance:
            return prediction
        return torch.cat([prediction, conditional.chunk(2, dim=1)[1]], dim=1)

    return denoise
