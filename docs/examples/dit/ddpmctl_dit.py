"""A diffusion transformer (Peebles & Xie 2023) as a network of a package of its own."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.config import ConfigError
from ddpm.network.own import NetworkShape, OwnNetwork


@dataclass(frozen=True)
class DiTConfig:
    """What a job file may set beside `network: dit`."""

    patch_size: int = 2
    width: int = 64
    depth: int = 4
    num_heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads):
            raise ConfigError("width", self.width, f"a multiple of {2 * self.num_heads}")


class Block(nn.Module):
    """Attention and an MLP, each scaled, shifted and gated by timestep and class (adaLN-Zero)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, config.num_heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Take tokens x: (B, N, W) and what they are told: (B, W)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(told)[:, None].chunk(
            6, dim=2
        )
        inner = self.norm(x) * (1 + scale1) + shift1
        attended, _ = self.attention(inner, inner, inner, need_weights=False)
        x = x + gate1 * self.dropout(attended)
        return x + gate2 * self.dropout(self.mlp(self.norm(x) * (1 + scale2) + shift2))


class DiT(nn.Module):
    """Cuts images into patches, and predicts a patch for each."""

    def __init__(self, config: DiTConfig, shape: NetworkShape) -> None:
        super().__init__()
        (channels, height, width), size = shape.image_shape, config.patch_size
        if height % size or width % size:
            raise ConfigError("patch_size", size, f"a divisor of {height} and {width}")
        self.grid, self.size = (height // size, width // size), size
        self.embed = nn.Conv2d(channels, config.width, size, stride=size)
        self.places = nn.Parameter(0.02 * torch.randn(math.prod(self.grid), config.width))
        frequencies = torch.exp(-math.log(1e4) * torch.linspace(0.0, 1.0, config.width // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(nn.Linear(config.width, config.width), nn.SiLU())
        self.classes = nn.Embedding(shape.num_classes + 1, config.width)  # the last: no class
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.out = nn.Linear(config.width, shape.out_channels * size**2)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Take x_t: (B, C, H, W), t: (B,) and labels: (B,) or None; give (B, out, H, W)."""
        angles = t[:, None].float() * self.frequencies
        told = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        if labels is not None:
            told = F.silu(told + self.classes(labels))
        x = self.embed(x_t).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x, told)
        patches = self.out(F.layer_norm(x, x.shape[-1:])).transpose(1, 2)
        return F.fold(patches, [self.size * n for n in self.grid], self.size, stride=self.size)


NETWORK = OwnNetwork(config=DiTConfig, build=DiT)
