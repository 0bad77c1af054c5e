"""The settings of a network here, and those of diffusers' UNet2DModel."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ddpm.config import UNetConfig, network_name
from ddpm.errors import ForeignModelError
from ddpm.network.generative import GenerativeNetwork
from ddpm.network.unet import UNet

DIFFUSERS_VERSION = "0.35.0"
"""The oldest that reads what is written here as it is meant."""

UNET = "unet"
_DOWN, _UP = ("DownBlock2D", "AttnDownBlock2D"), ("UpBlock2D", "AttnUpBlock2D")
# What the network here always has: diffusers' field, the value, diffusers' default.
_FIXED: dict[str, tuple[Any, Any]] = {
    "center_input_sample": (False, False),
    "time_embedding_type": ("positional", "positional"),
    "time_embedding_dim": (None, None),
    "freq_shift": (1, 0),
    "flip_sin_to_cos": (False, True),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "mid_block_scale_factor": (1, 1),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "conv"),
    "upsample_type": ("conv", "conv"),
    "act_fn": ("silu", "silu"),
    "attn_norm_num_groups": (None, None),
    "resnet_time_scale_shift": ("default", "default"),
    "add_attention": (True, True),
    "class_embed_type": (None, None),
}


def unet_there(model: GenerativeNetwork) -> dict[str, object]:
    """Return the config of the UNet2DModel that computes what a network does.

    Raises:
        ForeignModelError: There is none; the field that stands in the way is named.
    """
    if name := network_name(model.config):
        message = f"{name} is another package's, which diffusers does not know"
        raise ForeignModelError("model.network", message)
    if not isinstance(model, UNet):
        family = model.config.family
        raise ForeignModelError("model.family", f"diffusers has no {family} of this form")
    config, (channels, height, width) = model.config, model.image_shape
    multipliers = config.channel_multipliers
    attends = [height >> level in config.attention_resolutions for level in range(len(multipliers))]
    classes = config.known_classes
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": DIFFUSERS_VERSION,
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": model.out_channels,
        "down_block_types": [_DOWN[attended] for attended in attends],
        "up_block_types": [_UP[attended] for attended in reversed(attends)],
        "block_out_channels": [config.channels * multiplier for multiplier in multipliers],
        "layers_per_block": config.num_res_blocks,
        "attention_head_dim": _head_dim(model),
        "norm_num_groups": _num_groups(model),
        "norm_eps": config.norm_eps,
        "dropout": config.dropout,
        "num_class_embeds": classes + 1 if classes else None,
        **{field: value for field, (value, _) in _FIXED.items()},
    }


def _head_dim(model: UNet) -> int | None:
    """Return the channels of a head, the same at every level; None for one head of all."""
    config = model.config
    if config.attention_head_dim is not None or config.num_heads == 1:
        return config.attention_head_dim
    widths = {
        stage.attention.projection.in_features
        for stage in [s for level in [*model.down, *model.up] for s in level.stages]
        + [model.middle1]
        if stage.attention is not None
    }
    if len(widths) > 1:
        message = (
            f"{config.num_heads} heads at levels of {sorted(widths)} channels: UNet2DModel has "
        )
        raise ForeignModelError("model.num_heads", message + "one size of a head, not one number")
    return int(widths.pop()) // config.num_heads


def _num_groups(model: nn.Module) -> int:
    numbers = {m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)}
    if len(numbers) > 1:
        message = (
            f"its norms have {' and '.join(map(str, sorted(numbers)))} groups, one number there"
        )
        raise ForeignModelError("model.channels", f"{message}; multiples of 32 have 32 everywhere")
    return int(numbers.pop())


def unet_here(
    values: Mapping[str, Any], num_classes: int | None
) -> tuple[UNetConfig, tuple[int, int, int]]:
    """Return the sizes and (C, H, W) of the network that a UNet2DModel is.

    Args:
        values: Its config; what is missing has diffusers' default.
        num_classes: Classes of its labels, where one more row of the embedding means no class; None
            where nobody knows that.

    Raises:
        ForeignModelError: What cannot be taken, all of it.
    """
    _check_fixed(values)
    widths = values.get("block_out_channels", [224, 448, 672, 896])
    if any(width % widths[0] for width in widths):
        message = f"{widths}: each must be a multiple of the first"
        raise ForeignModelError(f"{UNET}.block_out_channels", message)
    shape = _shape(values)
    config = UNetConfig(
        channels=widths[0],
        channel_multipliers=tuple(width // widths[0] for width in widths),
        num_res_blocks=values.get("layers_per_block", 2),
        attention_resolutions=_attention(values, shape[1]),
        attention_head_dim=values.get("attention_head_dim", 8),
        num_classes=_classes(values, num_classes),
        norm_eps=values.get("norm_eps", 1e-5),
        dropout=values.get("dropout", 0.0),
    )
    return config, shape


def check_groups(values: Mapping[str, Any], model: nn.Module) -> None:
    """Raise ForeignModelError unless the norms of a network have diffusers' number of groups."""
    wanted = values.get("norm_num_groups", 32)
    numbers = {m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)}
    if numbers != {wanted}:
        there = " and ".join(map(str, sorted(numbers)))
        raise ForeignModelError(f"{UNET}.norm_num_groups", f"{wanted}, and here it is {there}")


def _check_fixed(values: Mapping[str, Any]) -> None:
    if values.get("_class_name", "UNet2DModel") != "UNet2DModel":
        message = f"{values['_class_name']}, and only UNet2DModel can be taken"
        raise ForeignModelError(f"{UNET}._class_name", message)
    wrong = [
        f"{field} is {found!r} and must be {value!r}"
        for field, (value, default) in _FIXED.items()
        if (found := values.get(field, default)) != value
    ]
    if wrong:
        raise ForeignModelError(UNET, "; ".join(wrong))


def _shape(values: Mapping[str, Any]) -> tuple[int, int, int]:
    channels, size = values.get("in_channels", 3), values.get("sample_size")
    if values.get("out_channels", 3) != channels:
        message = f"{values.get('out_channels', 3)} of {channels}: a learned variance is not taken"
        raise ForeignModelError(f"{UNET}.out_channels", message)
    if size is None:
        raise ForeignModelError(f"{UNET}.sample_size", "is missing: the height and width of images")
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def _attention(values: Mapping[str, Any], height: int) -> tuple[int, ...]:
    """Return the heights of the levels that attend, the same on the way down and up."""
    down = list(values.get("down_block_types", [_DOWN[0], *[_DOWN[1]] * 3]))
    up = list(values.get("up_block_types", [*[_UP[1]] * 3, _UP[0]]))
    unknown = sorted({*down, *up} - {*_DOWN, *_UP})
    if unknown:
        raise ForeignModelError(UNET, f"has blocks that are not here: {', '.join(unknown)}")
    attends = [block == _DOWN[1] for block in down]
    if attends != [block == _UP[1] for block in reversed(up)]:
        message = "must attend at the same levels as down_block_types"
        raise ForeignModelError(f"{UNET}.up_block_types", message)
    return tuple(height >> level for level, attended in enumerate(attends) if attended)


def _classes(values: Mapping[str, Any], num_classes: int | None) -> int:
    rows = values.get("num_class_embeds")
    if rows is None:
        return 0
    if num_classes is None:
        message = f"{rows}: nothing says whether the last one stands for no class; say it with "
        raise ForeignModelError(f"{UNET}.num_class_embeds", f"{message}--last-class-is-none")
    if num_classes + 1 != rows:
        message = f"{rows}, but {num_classes} classes and one for none are {num_classes + 1}"
        raise ForeignModelError(f"{UNET}.num_class_embeds", message)
    return num_classes
