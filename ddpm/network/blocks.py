"""The parts of the U-Net: residual blocks, self-attention, and the levels that they stand in.

Ho et al. 2020, appendix B. Each works in either memory format, see `unet`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm.config import num_groups
from ddpm.network.convolution import Conv2d
from ddpm.network.dropout import Dropout
from ddpm.network.layers import attention, group_norm, group_norm_silu


def norm(channels: int, eps: float) -> nn.GroupNorm:
    """Return a group norm of as many groups as the channels allow, 32 at most."""
    return nn.GroupNorm(num_groups(channels), channels, eps=eps)


def conv(in_channels: int, out_channels: int, kernel_size: int = 3) -> Conv2d:
    """Return a convolution that keeps height and width."""
    return Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the timestep embedding added between them, and a shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        dropout: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.norm1 = norm(in_channels, norm_eps)
        self.conv1 = conv(in_channels, out_channels)
        self.embedding = nn.Linear(embedding_channels, out_channels)
        self.norm2 = norm(out_channels, norm_eps)
        self.dropout = Dropout(dropout)
        self.conv2 = conv(out_channels, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = conv(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, C_in, H, W) and the activated embedding (B, E) to (B, C_out, H, W)."""
        h: Tensor = self.conv1(group_norm_silu(x, self.norm1))
        h = h + self.embedding(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(group_norm_silu(h, self.norm2)))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + h


class SelfAttention(nn.Module):
    """Attention of every pixel of a feature map to every other, with a residual."""

    def __init__(self, channels: int, num_heads: int, norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = norm(channels, norm_eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        channels, height, width = x.shape[1:]
        # (B, H*W, C), a view in channels_last.
        pixels = group_norm(x, self.norm).flatten(2).transpose(1, 2)
        qkv = self.qkv(pixels).unflatten(2, (3, self.num_heads, channels // self.num_heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, H*W, C/heads)
        attended = attention(q, k, v)
        attended = self.projection(attended.transpose(1, 2).flatten(2))
        residual: Tensor = attended.transpose(1, 2).unflatten(2, (height, width))
        return x + residual


class Downsample(nn.Module):
    """Halves height and width with a strided convolution, padded on the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        doubled: Tensor = self.conv(repeated(x))
        return doubled


def repeated(x: Tensor) -> Tensor:
    """Repeat each pixel of (B, C, H, W) in both directions."""
    if x.device.type == "cpu":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    # The gradient of torch's own, where it is deterministic, takes longer than the convolutions.
    return repeated_view(x)


def repeated_view(x: Tensor) -> Tensor:
    """Repeat as `repeated`; the gradient is a sum."""
    batch, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None]
    pixels = pixels.expand(batch, height, 2, width, 2, channels)
    return pixels.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """A residual block and, at resolutions that have it, self-attention."""

    def __init__(self, block: ResidualBlock, attention: SelfAttention | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.is_recomputed = False

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, C_in, H, W) and the activated embedding (B, E) to (B, C_out, H, W)."""
        if not (self.is_recomputed and torch.is_grad_enabled()):
            return self._computed(x, embedding)
        # Dropout has keys of its own, so no generator's state has to be kept.
        again: Tensor = checkpoint(
            self._computed, x, embedding, use_reentrant=False, preserve_rng_state=False
        )
        return again

    def _computed(self, x: Tensor, embedding: Tensor) -> Tensor:
        h: Tensor = self.block(x, embedding)
        if self.attention is not None:
            h = self.attention(h)
        return h


class DownLevel(nn.Module):
    """The stages of one resolution on the way down, and the step to the next one."""

    def __init__(self, stages: list[Stage], downsample: Downsample | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.downsample = downsample

    def forward(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Return what each stage and the step gave: the skip connections, the newest last."""
        outputs = []
        for stage in self.stages:
            x = stage(x, embedding)
            outputs.append(x)
        if self.downsample is not None:
            outputs.append(self.downsample(x))
        return outputs


class UpLevel(nn.Module):
    """The stages of one resolution on the way up, and the step to the next one."""

    def __init__(self, stages: list[Stage], upsample: Upsample | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.upsample = upsample

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Go up one level; each stage takes the newest of the skip connections off the list."""
        for stage in self.stages:
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding)
        if self.upsample is not None:
            x = self.upsample(x)
        return x
