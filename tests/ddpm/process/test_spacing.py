"""Timesteps of shortened chains: the grids of published tables, written as their code has them."""

import numpy as np
import pytest

from ddpm.config import ConfigError, SamplingConfig
from ddpm.process.spacing import sampling_timesteps


def _timesteps(spacing: str, num_steps: int, num_timesteps: int = 1000) -> list[int]:
    config = SamplingConfig(num_steps=num_steps, spacing=spacing)  # type: ignore[arg-type]
    return sampling_timesteps(config, num_timesteps)


@pytest.mark.parametrize("num_steps", [10, 20, 50, 100, 1000])
def test_ddim_linear_is_the_grid_of_ddims_tables(num_steps: int) -> None:
    """ermongroup/ddim: seq = range(0, T, T // S)."""
    assert _timesteps("ddim_linear", num_steps) == list(range(0, 1000, 1000 // num_steps))


@pytest.mark.parametrize("num_steps", [10, 20, 50, 100])
def test_ddim_quadratic_is_the_grid_of_ddims_cifar_tables(num_steps: int) -> None:
    """ermongroup/ddim: seq = [int(s) for s in np.linspace(0, np.sqrt(T * 0.8), S) ** 2]."""
    released = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), num_steps) ** 2]
    found = _timesteps("ddim_quadratic", num_steps)
    assert found == sorted(set(released))
    assert found[-1] in (799, 800)


@pytest.mark.parametrize("num_steps", [7, 25, 50, 100, 250, 999])
def test_improved_linear_is_the_grid_of_improved_ddpm(num_steps: int) -> None:
    """improved-diffusion's space_timesteps with one section: rounded, summed in floats."""
    stride, at, released = 999 / (num_steps - 1), 0.0, []
    for _ in range(num_steps):
        released.append(round(at))
        at += stride
    assert _timesteps("improved_linear", num_steps) == released
    assert _timesteps("improved_linear", num_steps) != _timesteps("linear", num_steps)


def test_a_number_of_steps_that_a_grid_has_not_is_refused() -> None:
    """The released code would visit another number of timesteps without a word."""
    with pytest.raises(ConfigError, match="a divisor of 1000 with spacing ddim_linear"):
        _timesteps("ddim_linear", 300)
