"""The learning rate of a step is what its schedule says, from the first step to the last."""

import dataclasses
import math
from typing import Any

import pytest

from ddpm.config import ConfigError, TrainingConfig
from ddpm.training.learning_rate import learning_rate_at

CONFIG = TrainingConfig(num_steps=12, learning_rate=1.0, lr_warmup_steps=4)
FALLS = {
    "constant": [1.0] * 8,
    "linear": [1 - k / 8 for k in range(8)],
    "cosine": [math.cos(math.pi * k / 16) ** 2 for k in range(8)],  # (1 + cos 2x) / 2 = cos^2 x
    "inverse_sqrt": [math.sqrt(4 / (k + 5)) for k in range(8)],
}


def _config(**changes: Any) -> TrainingConfig:
    return dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize("schedule", FALLS)
def test_a_schedule_rises_to_its_peak_and_then_falls_as_it_says(schedule: str) -> None:
    """No step has the rate 0, which would waste it."""
    config = _config(lr_schedule=schedule)
    rates = [learning_rate_at(config, step) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == pytest.approx(FALLS[schedule], abs=1e-12)
    assert min(rates) > 0


@pytest.mark.parametrize("schedule", FALLS)
@pytest.mark.parametrize("warmup", [1, 12, 20])
def test_a_rise_as_long_as_the_run_or_longer_divides_by_nothing(schedule: str, warmup: int) -> None:
    """It is only warned of."""
    config = _config(lr_schedule=schedule, lr_warmup_steps=warmup)
    rates = [learning_rate_at(config, step) for step in range(12)]
    assert all(0 < rate <= 1 for rate in rates)


def test_a_root_falls_from_a_rise() -> None:
    """Without one, its peak would be that of step 0, whose root is of nothing."""
    with pytest.raises(ConfigError, match="lr_warmup_steps must be greater than 0"):
        _config(lr_schedule="inverse_sqrt", lr_warmup_steps=0)


@pytest.mark.parametrize(
    ("schedule", "depends"),
    [("constant", False), ("linear", True), ("cosine", True), ("inverse_sqrt", False)],
)
def test_a_rate_that_needs_the_length_says_so(schedule: str, depends: bool) -> None:
    """A run whose rates change with its length cannot be made longer."""
    short, long = _config(lr_schedule=schedule), _config(lr_schedule=schedule, num_steps=24)
    assert short.lr_depends_on_length is depends
    same = all(learning_rate_at(short, k) == learning_rate_at(long, k) for k in range(12))
    assert same is not depends
