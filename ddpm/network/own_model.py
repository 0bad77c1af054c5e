"""The network of another package as one that is trained and drawn from like ours."""

import torch
from torch import Tensor

from ddpm.config import DiffusionConfig, OwnConfig
from ddpm.network.generative import GenerativeNetwork
from ddpm.network.own import NetworkShape
from ddpm.network.own_trial import build_module


class OwnModel(GenerativeNetwork):
    """Calls a package's network as its author was promised: contiguous images, labels or None.

    Attributes:
        config: Which network, and its settings.
        network: The package's module.
    """

    is_own = True
    config: OwnConfig

    def __init__(
        self,
        config: OwnConfig,
        diffusion: DiffusionConfig,
        image_shape: tuple[int, int, int],
        *,
        seed: int = 0,
    ) -> None:
        """Build the package's network with weights drawn from `seed` alone. Raises: ConfigError."""
        super().__init__()
        self.config = config
        self.image_shape = image_shape
        shape = shape_of(config, diffusion, image_shape)
        self.network = build_module(config, shape, seed)

    def recompute_activations(self, asked: bool) -> None:
        """Refuse: which parts could be computed again is the package's to know.

        Raises:
            ValueError: It was asked.
        """
        if asked:
            raise ValueError(f"the network {self.config.network} computes no activations again")

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the network's output: (B, out_channels, H, W) float32."""
        if not self.knows_labels:
            labels = None
        elif labels is None:
            labels = torch.full_like(t, self.null_label)
        output: Tensor = self.network(x_t.contiguous(), t, labels)
        return output.float()


def shape_of(
    config: OwnConfig, diffusion: DiffusionConfig, image_shape: tuple[int, int, int]
) -> NetworkShape:
    """Return what a network has to take and to give."""
    out_channels = image_shape[0] * diffusion.outputs_per_channel
    return NetworkShape(image_shape, out_channels, config.known_classes)
