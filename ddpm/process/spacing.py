"""Which of the T timesteps a shorter chain visits.

"linear" and "quadratic" are floor(c i) and floor(c i^2) (Song et al. 2020, appendix D.2), where i
runs from 0, so that the cleanest timestep is visited, and c is such that the last is T - 1. The
others choose as released code does, which is what published tables were made with.
"""

import math
from collections.abc import Callable, Mapping

from ddpm.config import ConfigError, SamplingConfig

_DDIM_QUADRATIC_SHARE = 0.8  # of T: where that code's quadratic spacing ends


def sampling_timesteps(config: SamplingConfig, num_timesteps: int) -> list[int]:
    """Choose the timesteps that a chain visits.

    A chain of one step has T - 1 alone.

    Args:
        config: The sampler; its method doesn't matter here.
        num_timesteps: T.

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


_SPACINGS: Mapping[str, Callable[[int, int], list[int]]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "ddim_linear": _ddim_linear,
    "ddim_quadratic": _ddim_quadratic,
    "improved_linear": _improved_linear,
}
