"""The moving average of the weights follows its formula, with warm-up and without."""

import pytest
import torch

from ddpm.config import TrainingConfig
from ddpm.training.ema import ema_decay_at, update_ema


def test_update_is_the_weighted_mean() -> None:
    """Checked in float64, so that only the formula counts."""
    average, values = torch.tensor([1.0, -2.0]).double(), torch.tensor([3.0, 6.0]).double()
    update_ema(average, values, 0.75)
    assert average.tolist() == [1.5, 0.0]


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (1, 2 / 11), (90, 0.91), (10**7, 0.9999)])
def test_warm_up_raises_the_decay_to_its_limit(step: int, decay: float) -> None:
    """With 0.9999 from the start, a run of 1,000 steps would average its initial weights."""
    config = TrainingConfig(num_steps=1, ema_decay=0.9999, ema_warmup=True)
    assert ema_decay_at(config, step) == pytest.approx(decay)


def test_decay_is_constant_without_warm_up() -> None:
    """Ho's setting, for runs that are compared with the paper."""
    config = TrainingConfig(num_steps=1, ema_decay=0.9999, ema_warmup=False)
    assert ema_decay_at(config, 0) == 0.9999
