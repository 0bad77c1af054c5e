"""The settings of a diffusion here, and those of diffusers' DDPMScheduler."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from ddpm.config import Betas, ConfigError, DiffusionConfig
from ddpm.errors import ForeignModelError
from ddpm.exchange.networks import DIFFUSERS_VERSION
from ddpm.process.schedule import build_schedule, zero_snr_betas

SCHEDULER = "scheduler"
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
