"""Which of the T timesteps a shorter chain visits.

"linear" and "quadratic" are floor(c i) and floor(c i^2) (Song et al. 2020, appendix D.2), where i
runs from 0, so that the cleanest timestep is visited, and c is such that the last is T - 1.
"logsnr" and "karras" are even in a measure of the noise, as near as whole timesteps come. The
others choose as released code does, which is what published tables were made with.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ddpm.config import ConfigError, SamplingConfig
from ddpm.process.schedule import NoiseSchedule

_DDIM_QUADRATIC_SHARE = 0.8  # of T: where that code's quadratic spacing ends
_KARRAS_RHO = 7.0


def sampling_timesteps(
    config: SamplingConfig, num_timesteps: int, schedule: NoiseSchedule | None = None
) -> list[int]:
    """Choose the timesteps that a chain visits.

    A chain of one step has T - 1 alone.

    Args:
        config: The sampler; its method doesn't matter here.
        num_timesteps: T.
        schedule: The model's; needed by "logsnr" and "karras" alone.

    Returns:
        `config.num_steps` distinct timesteps, increasing, 0-based. Of "ddim_quadratic" those that
        meet near 0 are one: there the released code takes steps that change nothing.

    Raises:
        ConfigError: More steps are asked for than there are, or the spacing has no such number.
    """
    total, steps = num_timesteps, config.num_steps
    if steps > total:
        raise ConfigError("num_steps", steps, f"at most {total}, the model's num_timesteps")
    if steps == 1:
        return [total - 1]
    if config.spacing in _MEASURES:
        if schedule is None:
            raise TypeError(f"spacing {config.spacing} needs the schedule")
        return _even(_MEASURES[config.spacing](schedule), steps)
    return _SPACINGS[config.spacing](total, steps)


def _linear(total: int, steps: int) -> list[int]:
    last, gaps = total - 1, steps - 1
    return [last * i // gaps for i in range(steps)]


def _quadratic(total: int, steps: int) -> list[int]:
    """Where timesteps would meet near 0, they are counted up instead."""
    last, gaps = total - 1, steps - 1
    return [max(last * i * i // gaps**2, i) for i in range(steps)]


def _ddim_linear(total: int, steps: int) -> list[int]:
    """Every (T / S)-th timestep from 0: the last is T - T / S. Song et al. 2020, their code."""
    if total % steps:
        raise ConfigError("num_steps", steps, f"a divisor of {total} with spacing ddim_linear")
    return list(range(0, total, total // steps))


def _ddim_quadratic(total: int, steps: int) -> list[int]:
    """Squares of even steps from 0 to the root of 0.8 T. Song et al. 2020, their code."""
    gap = math.sqrt(total * _DDIM_QUADRATIC_SHARE) / (steps - 1)
    return sorted({int((gap * i) ** 2) for i in range(steps)})


def _improved_linear(total: int, steps: int) -> list[int]:
    """As "linear", but rounded, and summed up as in Nichol & Dhariwal 2021, their code."""
    gap, at, timesteps = (total - 1) / (steps - 1), 0.0, []
    for _ in range(steps):
        timesteps.append(round(at))
        at += gap
    return timesteps


def _negative_log_snr(schedule: NoiseSchedule) -> Tensor:
    """Return what grows with the noise and is even in the log of the signal-to-noise ratio."""
    cumprod = schedule.alphas_cumprod
    return (1.0 - cumprod).log() - cumprod.log()


def _karras_measure(schedule: NoiseSchedule) -> Tensor:
    """Return sigma^(1 / rho) of the scaled noise: Karras et al. 2022, eq. 5, with rho = 7."""
    return schedule.sqrt_recipm1_alphas_cumprod.pow(1.0 / _KARRAS_RHO)


def _even(measure: Tensor, steps: int) -> list[int]:
    """Return the distinct timesteps nearest to even steps of a measure that grows with t.

    Args:
        measure: (T,) float64; the last may be infinite, where nothing of x_0 is left: that timestep
            then is one of the steps, and the others are even among the rest.
        steps: How many, at least 2.
    """
    total = len(measure)
    is_end = not bool(torch.isfinite(measure[-1]))
    finite, count = (measure[:-1], steps - 1) if is_end else (measure, steps)
    wanted = torch.linspace(float(finite[0]), float(finite[-1]), count, dtype=torch.float64)
    nearest = (finite[None] - wanted[:, None]).abs().argmin(dim=1).tolist()
    timesteps = [*nearest, total - 1] if is_end else nearest
    for i in range(1, steps):
        timesteps[i] = max(timesteps[i], timesteps[i - 1] + 1)
    return [min(t, total - steps + i) for i, t in enumerate(timesteps)]


_MEASURES: Mapping[str, Callable[[NoiseSchedule], Tensor]] = {
    "logsnr": _negative_log_snr,
    "karras": _karras_measure,
}
_SPACINGS: Mapping[str, Callable[[int, int], list[int]]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "ddim_linear": _ddim_linear,
    "ddim_quadratic": _ddim_quadratic,
    "improved_linear": _improved_linear,
}
