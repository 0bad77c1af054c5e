"""From images to a vector, and from a vector to images: what a VAE and a GAN are built of."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.baselines.sizes import deepest_shape, level_widths
from ddpm.config import UNetConfig
from ddpm.network.generative import GenerativeNetwork

_SLOPE = 0.2  # of the leaky rectifier below 0
_MAX_GROUPS = 8


class LatentNetwork(GenerativeNetwork):
    """A network that draws an image in one step from a latent vector.

    It is asked as a network of a chain with T = 1 is: the latent vector is the first numbers of
    x_T, and the answer is x_0. So images are drawn, numbered and seeded like those of any chain.

    Attributes:
        decoder: Makes the images.
    """

    config: UNetConfig
    decoder: "Decoder"

    def __init__(self, config: UNetConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        config.check_image_shape(image_shape)
        self.config = config
        self.image_shape = image_shape

    def recompute_activations(self, asked: bool) -> None:
        """Do nothing if it is not asked for.

        Raises:
            ValueError: It is: these networks have no stages that could be computed again.
        """
        if asked:
            raise ValueError(f"a {self.config.family} computes no activations again")

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return x_0, (B, C, H, W) float32, from pure noise.

        Args:
            x_t: (B, C, H, W) float32, standard normal.
            t: (B,) int64, all 0; not read.
            labels: Not read.
        """
        del t, labels
        images: Tensor = self.decoder(x_t.flatten(1)[:, : self.config.latent_size])
        return images


class Encoder(nn.Module):
    """Turns images into a vector of `out_size` numbers; each level but the last halves the edges.

    Args:
        config: Widths of the levels.
        image_shape: (C, H, W).
        out_size: Of the vector.
        normalized: Whether there is group norm; a critic of images has none.
    """

    def __init__(
        self,
        config: UNetConfig,
        image_shape: tuple[int, int, int],
        out_size: int,
        *,
        normalized: bool = True,
    ) -> None:
        super().__init__()
        widths = level_widths(config)
        self.layers = nn.ModuleList()
        inner = image_shape[0]
        for level, width in enumerate(widths):
            self.layers.append(_Layer(inner, width, normalized=normalized))
            if level < len(widths) - 1:
                self.layers.append(_Layer(width, width, normalized=normalized, stride=2))
            inner = width
        self.out = nn.Linear(math.prod(deepest_shape(config, image_shape)), out_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, out_size) float32 for images (B, C, H, W) float32."""
        x = images.to(self.out.weight.dtype)
        for layer in self.layers:
            x = layer(x)
        vector: Tensor = self.out(x.flatten(1))
        return vector.float()


class Decoder(nn.Module):
    """Turns latent vectors into images; the mirror of `Encoder`.

    Args:
        config: Widths of the levels, and the size of the vector.
        image_shape: (C, H, W).
    """

    def __init__(self, config: UNetConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        widths = level_widths(config)
        self._deepest = deepest_shape(config, image_shape)
        self.enter = nn.Linear(config.latent_size, math.prod(self._deepest))
        self.layers = nn.ModuleList()
        inner = widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            self.layers.append(_Layer(inner, width))
            if level > 0:
                self.layers.append(_Layer(width, width, doubles=True))
            inner = width
        self.out = nn.Conv2d(inner, image_shape[0], 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Return (B, C, H, W) float32 for latents (B, latent_size)."""
        x = self.enter(latents.to(self.enter.weight.dtype)).unflatten(1, self._deepest)
        for layer in self.layers:
            x = layer(x)
        images: Tensor = self.out(x)
        return images.float()


class _Layer(nn.Module):
    """A convolution, perhaps group norm, and a leaky rectifier."""

    def __init__(
        self,
        inner: int,
        outer: int,
        *,
        normalized: bool = True,
        stride: int = 1,
        doubles: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride=stride, padding=1)
        groups = math.gcd(outer, _MAX_GROUPS)
        self.norm = nn.GroupNorm(groups, outer) if normalized else None
        self._doubles = doubles

    def forward(self, x: Tensor) -> Tensor:
        if self._doubles:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.leaky_relu(x, _SLOPE)


def draw_weights(network: nn.Module, seed: int) -> None:
    """Draw every weight for leaky rectifiers (He et al. 2015), from `seed` alone; biases are 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, _SLOPE, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
