"""The sizes of a network."""

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from ddpm.settings.classes import ToldClasses, check_image_channels
from ddpm.settings.fields import CLOSED, require, require_positive

Family = Literal["ddpm", "vae", "gan"]

NUM_AUGMENTATIONS = 9
"""Conditions of each image for a network with `augmentation`."""
_MAX_GROUPS = 32
_LATENT_SIZE = 32
_OF_BOTH = frozenset({"family", "channels", "channel_multipliers"})
_OF_LATENT = frozenset({"latent_size"})
_OF_UNET = frozenset(
    {
        "num_res_blocks",
        "attention_resolutions",
        "num_heads",
        "attention_head_dim",
        "num_classes",
        "norm_eps",
        "dropout",
        "augmentation",
    }
)


def num_groups(channels: int) -> int:
    """Return the groups of a group norm: the largest number up to 32 that divides the channels."""
    return max(groups for groups in range(1, _MAX_GROUPS + 1) if channels % groups == 0)


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ToldClasses):
    """The sizes of a network; the defaults are the CIFAR-10 model of Ho et al. 2020, appendix B.

    Attributes:
        family: What is trained: "ddpm", a U-Net that takes noise away step by step; or, to compare
            with, "vae" (Kingma & Welling 2014) or "gan" (Goodfellow et al. 2014, with the
            non-saturating loss and R1), which draw an image in one step from a latent vector. Of
            the sizes those two have `channels`, `channel_multipliers` and `latent_size` alone.
        channels: Width of the first level.
        channel_multipliers: Width of each level as a multiple of `channels`; every level but the
            last halves height and width.
        num_res_blocks: Residual blocks of a level on the way down (one more on the way up).
        attention_resolutions: Heights (in pixels) of the levels that have self-attention. The
            middle of the U-Net always has it.
        num_heads: Attention heads of every level.
        attention_head_dim: Channels of a head, so that the number of heads varies by level, as in
            diffusers; None takes `num_heads`.
        num_classes: Classes that the network is conditioned on, 0 for none; "auto" takes those
            of the data set. One more row of the embedding stands for no class.
        norm_eps: What group norm adds to the variance: 1e-6 in Ho's code, 1e-5 in torch.
        dropout: Probability of dropout in each residual block, in [0, 1).
        augmentation: Whether the network is conditioned on what `training.augment` did.
        latent_size: Numbers of the latent vector of a "vae" or a "gan", at most those of an image.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = CLOSED

    family: Family = "ddpm"
    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    num_heads: int = 1
    attention_head_dim: int | None = None
    num_classes: int | Literal["auto"] = 0
    norm_eps: float = 1e-6
    dropout: float = 0.1
    augmentation: bool = False
    latent_size: int = _LATENT_SIZE

    def __post_init__(self) -> None:
        require_positive(self, "channels", "num_res_blocks", "num_heads", "norm_eps", "latent_size")
        require(self.channels % 2 == 0, "channels", self.channels, "even")
        multipliers = self.channel_multipliers
        require(
            len(multipliers) > 0 and min(multipliers) > 0,
            "channel_multipliers",
            multipliers,
            "a list of numbers greater than 0",
        )
        require(
            all(size > 0 for size in self.attention_resolutions),
            "attention_resolutions",
            self.attention_resolutions,
            "a list of heights greater than 0",
        )
        self._check_heads()
        self.check_classes()
        require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "in [0, 1)")
        self._check_unused()

    def _check_unused(self) -> None:
        """Refuse sizes that the family's networks do not have."""
        used = _OF_BOTH | (_OF_UNET if self.family == "ddpm" else _OF_LATENT)
        for field in fields(self):
            value = getattr(self, field.name)
            is_read = field.name in used or value == field.default
            message = f"left out with family {self.family}, whose networks have no such size"
            require(is_read, field.name, value, message)

    def _check_heads(self) -> None:
        widths = [self.channels * multiplier for multiplier in self.channel_multipliers]
        divides = "a divisor of the channels of every level"
        require(
            all(width % self.num_heads == 0 for width in widths),
            "num_heads",
            self.num_heads,
            divides,
        )
        size = self.attention_head_dim
        if size is not None:
            fits = size > 0 and all(width % size == 0 for width in widths)
            require(fits, "attention_head_dim", size, divides)
            require(self.num_heads == 1, "num_heads", self.num_heads, "1 with attention_head_dim")

    @property
    def loses_embeddings(self) -> bool:
        """Whether no block can tell timesteps or labels apart.

        Their embedding adds one number to each channel, and a group norm behind it, whose groups
        are of one channel, takes that number off again.
        """
        widths = [self.channels * multiplier for multiplier in self.channel_multipliers]
        return all(num_groups(width) == width for width in widths)

    def num_heads_of(self, channels: int) -> int:
        """Return the attention heads of a level of so many channels."""
        return channels // self.attention_head_dim if self.attention_head_dim else self.num_heads

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Raise ConfigError unless a network of these sizes takes (C, H, W) images."""
        channels, height, width = image_shape
        check_image_channels(channels)
        levels = len(self.channel_multipliers)
        divisor = 2 ** (levels - 1)
        require(
            height > 0 and width > 0 and height % divisor == 0 and width % divisor == 0,
            "image size",
            f"{height}x{width}",
            f"divisible by {divisor}, since channel_multipliers has {levels} levels",
        )
        pixels = channels * height * width
        require(
            self.family == "ddpm" or self.latent_size <= pixels,
            "latent_size",
            self.latent_size,
            f"at most {pixels}, the numbers of an image",
        )
