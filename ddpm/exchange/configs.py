"""The settings of a model here, and those of diffusers' UNet2DModel and DDPMScheduler."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ddpm.config import Betas, ConfigError, DiffusionConfig, UNetConfig, network_name
from ddpm.errors import ForeignModelError
from ddpm.network.generative import GenerativeNetwork
from ddpm.network.unet import UNet
from ddpm.process.schedule import build_schedule, zero_snr_betas

DIFFUSERS_VERSION = "0.35.0"
"""The oldest that reads what is written here as it is meant."""

UNET, SCHEDULER = "unet", "scheduler"
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
_PREDICTIONS = {"epsilon": "epsilon", "x_start": "sample", "v": "v_prediction"}
# Names of the betas that both know, with the two numbers that make them so at T = 1000.
_SCHEDULES: dict[str, tuple[str, float, float]] = {
    "linear": ("linear", 1e-4, 0.02),
    "cosine": ("squaredcos_cap_v2", 1e-4, 0.02),
    "scaled_linear": ("scaled_linear", 0.00085, 0.012),
}
_SAME_BETAS = 1e-4  # relative: files keep them in float32, and one minus them loses more


def check_can_leave(diffusion: DiffusionConfig) -> None:
    """Raise ForeignModelError for what no scheduler of diffusers' takes."""
    if diffusion.prediction not in _PREDICTIONS:
        message = f"{diffusion.prediction} has no name in diffusers; {', '.join(_PREDICTIONS)} have"
        raise ForeignModelError("diffusion.prediction", message)
    if diffusion.variance == "learned":
        message = "learned: UNet2DModel's pipelines take fixed variances alone"
        raise ForeignModelError("diffusion.variance", message)


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


def scheduler_there(diffusion: DiffusionConfig) -> dict[str, object]:
    """Return the config of the DDPMScheduler of a diffusion, with the same betas.

    Raises:
        ForeignModelError: There is none.
    """
    check_can_leave(diffusion)
    steps = diffusion.num_timesteps
    is_named = diffusion.betas in _SCHEDULES and not diffusion.rescale_zero_snr
    name, start, end = _SCHEDULES[diffusion.betas if is_named else "linear"]
    betas = None if is_named else build_schedule(diffusion).betas.tolist()
    return {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "num_train_timesteps": steps,
        "beta_schedule": name,
        "beta_start": start * 1000 / steps,
        "beta_end": end * 1000 / steps,
        "trained_betas": betas,
        "prediction_type": _PREDICTIONS[diffusion.prediction],
        "variance_type": diffusion.variance,
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": False,
    }


def diffusion_here(values: Mapping[str, Any]) -> DiffusionConfig:
    """Return the diffusion whose betas a scheduler of diffusers' has.

    Raises:
        ForeignModelError: It predicts, varies or rises as nothing here does.
    """
    asked = values.get("prediction_type", "epsilon")
    names = {there: here for here, there in _PREDICTIONS.items()}
    if asked not in names:
        raise ForeignModelError(f"{SCHEDULER}.prediction_type", f"{asked} is not known here")
    variance = str(values.get("variance_type", "fixed_small")).removesuffix("_log")
    if variance not in ("fixed_small", "fixed_large"):
        message = f"{variance}: only fixed_small and fixed_large can be taken"
        raise ForeignModelError(f"{SCHEDULER}.variance_type", message)
    wanted = betas_there(values)
    distances = {}
    for config in _candidates(len(wanted), names[asked], variance):
        own = build_schedule(config).betas
        distances[config] = float(((own - wanted).abs() / own).max())
    best = min(distances, key=distances.__getitem__)
    if distances[best] > _SAME_BETAS:
        message = (
            f"are none of {', '.join(get_args(Betas))}; {best.betas}, the nearest, differs by "
        )
        raise ForeignModelError(f"{SCHEDULER} betas", f"{message}{distances[best]:.1%}")
    return best


def _candidates(num_timesteps: int, prediction: Any, variance: Any) -> list[DiffusionConfig]:
    found = []
    for betas in get_args(Betas):
        for rescaled in (False, True):
            try:
                config = DiffusionConfig(
                    num_timesteps=num_timesteps,
                    betas=betas,
                    rescale_zero_snr=rescaled,
                    prediction=prediction,
                    variance=variance,
                )
            except ConfigError:  # no such chain of that length, or for that prediction
                continue
            found.append(config)
    if not found:
        message = f"{num_timesteps} are too few for any schedule"
        raise ForeignModelError(f"{SCHEDULER}.num_train_timesteps", message)
    return found


def betas_there(values: Mapping[str, Any]) -> Tensor:
    """Return the betas that a scheduler of diffusers' has: (T,) float64.

    Raises:
        ForeignModelError: Its schedule is not known here.
    """
    steps = int(values.get("num_train_timesteps", 1000))
    start, end = float(values.get("beta_start", 1e-4)), float(values.get("beta_end", 0.02))
    name: str = values.get("beta_schedule", "linear")
    if values.get("trained_betas") is not None:
        betas = torch.tensor(values["trained_betas"], dtype=torch.float64)
    elif name == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
    elif name == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
    elif name == "squaredcos_cap_v2":
        betas = build_schedule(DiffusionConfig(num_timesteps=steps, betas="cosine")).betas
    elif name == "sigmoid":
        rise = torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64))
        betas = rise * (end - start) + start
    else:
        raise ForeignModelError(f"{SCHEDULER}.beta_schedule", f"{name} is not known here")
    if values.get("rescale_betas_zero_snr"):
        return zero_snr_betas(betas)
    return betas
