"""The network that a diffusion needs: its output also holds a variance where that is learned."""

from ddpm.config import DiffusionConfig, UNetConfig
from ddpm.network.unet import UNet


def build_network(
    config: UNetConfig,
    diffusion: DiffusionConfig,
    image_shape: tuple[int, int, int],
    *,
    seed: int = 0,
) -> UNet:
    """Return a network with weights drawn from `seed` alone.

    Args:
        config: Its sizes.
        diffusion: What its output stands for.
        image_shape: (C, H, W).
        seed: Of the initial weights.
    """
    out_channels = image_shape[0] * diffusion.outputs_per_channel
    return UNet(config, image_shape, out_channels=out_channels, seed=seed)
