"""The U-Net of Ho et al. 2020, appendix B.

Every layer works in either memory format; `channels_last` is the fast one, and then no layer
copies its input only to reorder it. Weights may be held in float32 or bfloat16: the input is
cast to their dtype on the way in and the output to float32 on the way out.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.config import NUM_AUGMENTATIONS, UNetConfig
from ddpm.network.blocks import (
    DownLevel,
    Downsample,
    ResidualBlock,
    SelfAttention,
    Stage,
    UpLevel,
    Upsample,
    conv,
    norm,
)
from ddpm.network.generative import GenerativeNetwork
from ddpm.network.layers import group_norm_silu


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Return sinusoids of t at `channels / 2` geometrically spaced frequencies.

    Args:
        t: (B,) int64 in [0, T).
        channels: Even; the first half are sines, the second cosines.

    Returns:
        (B, channels) float32. Vaswani et al. 2017, section 3.5, as used by Ho et al. 2020.
    """
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / max(half - 1, 1)
    angles = t[:, None].float() * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class UNet(GenerativeNetwork):
    """Predicts, from a noisy image and its timestep, what `DiffusionConfig.prediction` says.

    Attributes:
        config: The sizes.
        image_shape: (C, H, W) of the images.
        label_embedding: What it knows of classes; None for nothing.
        out_channels: Channels of the output: C, or 2 C with a variance behind the prediction.

    Raises:
        ConfigError: The levels do not divide the image, or it has not 1 to 4 channels.
    """

    config: UNetConfig
    label_embedding: nn.Embedding | None
    augment_embedding: nn.Parameter | None

    def __init__(
        self,
        config: UNetConfig,
        image_shape: tuple[int, int, int],
        *,
        out_channels: int | None = None,
        seed: int = 0,
    ) -> None:
        """Build the network with weights drawn from `seed` alone.

        Args:
            config: The sizes; its classes are a number.
            image_shape: (C, H, W).
            out_channels: Channels of the output; None takes the images' own.
            seed: Of the initial weights; the global generator is left as it is.
        """
        super().__init__()
        config.check_image_shape(image_shape)
        self.config = config
        self.image_shape = image_shape
        self.out_channels = out_channels or image_shape[0]
        with torch.device("meta"):  # the weights that torch would draw are never wanted
            self._build()
        # Module.to_empty would import sympy, half a second of each start.
        empty = {name: torch.empty(p.shape) for name, p in self.named_parameters()}
        self.load_state_dict(empty, assign=True)
        generator = torch.Generator().manual_seed(seed)
        _draw_weights(self, generator)
        if self.label_embedding is not None:  # last, so that labels change no other weight
            nn.init.normal_(self.label_embedding.weight, generator=generator)
        if self.augment_embedding is not None:  # draws nothing: what is told of begins as nothing
            nn.init.zeros_(self.augment_embedding)

    def _build(self) -> None:
        config = self.config
        width, embedding_channels = config.channels, 4 * config.channels
        self.embedding1 = nn.Linear(width, embedding_channels)
        self.embedding2 = nn.Linear(embedding_channels, embedding_channels)
        self.label_embedding = None
        if config.known_classes:
            rows = config.known_classes + 1  # the last one stands for no class
            self.label_embedding = nn.Embedding(rows, embedding_channels)
        self.augment_embedding = None
        if config.augmentation:
            weight = torch.empty(embedding_channels, NUM_AUGMENTATIONS)
            self.augment_embedding = nn.Parameter(weight)
        self.conv_in = conv(self.image_shape[0], width)
        skips = self._build_down()
        deepest = skips[-1]
        self.middle1 = Stage(self._block(deepest, deepest), self._attention(deepest))
        self.middle2 = Stage(self._block(deepest, deepest), None)
        self._build_up(skips)
        self.norm_out = norm(width, config.norm_eps)
        self.conv_out = conv(width, self.out_channels)

    def _block(self, in_channels: int, out_channels: int) -> ResidualBlock:
        config = self.config
        return ResidualBlock(
            in_channels, out_channels, 4 * config.channels, config.dropout, config.norm_eps
        )

    def _attention(self, channels: int) -> SelfAttention:
        return SelfAttention(channels, self.config.num_heads_of(channels), self.config.norm_eps)

    def _stage(self, in_channels: int, out_channels: int, level: int) -> Stage:
        config = self.config
        attention = None
        if self.image_shape[1] >> level in config.attention_resolutions:
            attention = self._attention(out_channels)
        return Stage(self._block(in_channels, out_channels), attention)

    def _build_down(self) -> list[int]:
        """Build the way down and return the channels of every skip connection, in order."""
        config = self.config
        self.down = nn.ModuleList()
        channels = config.channels
        skips = [channels]
        for level, multiplier in enumerate(config.channel_multipliers):
            stages = []
            for _ in range(config.num_res_blocks):
                stages.append(self._stage(channels, config.channels * multiplier, level))
                channels = config.channels * multiplier
                skips.append(channels)
            is_last = level == len(config.channel_multipliers) - 1
            self.down.append(DownLevel(stages, None if is_last else Downsample(channels)))
            if not is_last:
                skips.append(channels)
        return skips

    def _build_up(self, skips: list[int]) -> None:
        """Build the way up, which takes the skip connections from the last to the first."""
        config = self.config
        self.up = nn.ModuleList()
        remaining = list(skips)
        channels = skips[-1]
        for level in reversed(range(len(config.channel_multipliers))):
            width = config.channels * config.channel_multipliers[level]
            stages = []
            for _ in range(config.num_res_blocks + 1):
                stages.append(self._stage(channels + remaining.pop(), width, level))
                channels = width
            self.up.append(UpLevel(stages, None if level == 0 else Upsample(width)))

    def recompute_activations(self, asked: bool) -> None:
        """Have each stage keep its input alone, and compute the rest again for the gradient."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.is_recomputed = asked

    def embed(
        self, t: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Return the activated embedding of timesteps and labels: (B, E) in the weights' dtype.

        Args:
            t: (B,) int64 in [0, T).
            labels: (B,) int64, of a network that has some; None means no class.
            augment: (B, NUM_AUGMENTATIONS) float32, what was done to the images, of a network that
                is told; None means nothing.
        """
        dtype = self.conv_in.weight.dtype
        embedding = timestep_embedding(t, self.config.channels).to(dtype)
        embedding = self.embedding2(F.silu(self.embedding1(embedding)))
        if self.label_embedding is not None:
            if labels is None:
                labels = torch.full_like(t, self.null_label)
            embedding = embedding + self.label_embedding(labels)
        if self.augment_embedding is not None and augment is not None:
            embedding = embedding + F.linear(augment.to(dtype), self.augment_embedding)
        return F.silu(embedding)

    def forward(
        self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Return the network's output.

        Args:
            x_t: (B, C, H, W) float32, about unit variance.
            t: (B,) int64 in [0, T).
            labels: (B,) int64, as `embed` takes them; `null_label` and None mean no class.
            augment: (B, NUM_AUGMENTATIONS) float32, as `embed` takes it.

        Returns:
            (B, C, H, W) float32; `out_channels` instead of C, where they differ.
        """
        dtype = self.conv_in.weight.dtype
        embedding = self.embed(t, labels, augment)
        skips = [self.conv_in(x_t.to(dtype))]
        for level in self.down:
            skips += level(skips[-1], embedding)
        x = self.middle2(self.middle1(skips[-1], embedding), embedding)
        for level in self.up:
            x = level(x, embedding, skips)
        output: Tensor = self.conv_out(group_norm_silu(x, self.norm_out))
        return output.float()


def _draw_weights(model: UNet, generator: torch.Generator) -> None:
    """Draw every weight with variance 1 / fan_avg and set every bias to 0, as Ho's code does.

    The last layer of each residual branch and of the network starts at 0.
    """
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(cast(Tensor, module.bias))
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, SelfAttention):
            for part in module.qkv.weight.chunk(3):  # fan_avg is that of q, k and v apart
                nn.init.xavier_uniform_(part, generator=generator)
            nn.init.zeros_(module.projection.weight)
    nn.init.zeros_(model.conv_out.weight)
