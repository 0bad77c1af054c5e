"""The moving average of the weights follows its formula, with warm-up and without."""

from pathlib import Path

import pytest
import torch

from ddpm.config import ConfigError, TrainingConfig
from ddpm.errors import CheckpointFormatError
from ddpm.training.checkpoint import load_model, load_state, save_state
from ddpm.training.ema import ema_decay_at, update_ema
from tests.support.small_training import small_state, train


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


def test_further_averages_are_those_of_a_run_with_that_decay() -> None:
    """They cost memory and change nothing else: neither the weights nor the first average."""
    states = [
        small_state(ema_decay=0.9, ema_decays=(0.5, 0.99), ema_warmup=False),
        *(small_state(ema_decay=decay, ema_warmup=False) for decay in (0.9, 0.5, 0.99)),
    ]
    joint, *apart = [train(state, 6) for state in states]
    assert torch.equal(joint.parameters.values, apart[0].parameters.values)
    assert torch.equal(joint.ema, apart[0].ema)
    assert torch.equal(joint.further_emas["ema-0.5"], apart[1].ema)
    assert torch.equal(joint.further_emas["ema-0.99"], apart[2].ema)
    assert not torch.equal(joint.ema, joint.further_emas["ema-0.5"])


def test_further_averages_go_on_from_a_checkpoint_and_are_drawn_from(tmp_path: Path) -> None:
    """To the bit, as all else; each lies in a file of its own, whose name is asked for."""
    whole, halved, resumed = (small_state(ema_decays=(0.5,)) for _ in range(3))
    train(whole, 6)
    save_state(train(halved, 3), tmp_path)
    load_state(resumed, tmp_path)
    train(resumed, 6)
    assert torch.equal(resumed.further_emas["ema-0.5"], whole.further_emas["ema-0.5"])
    model, _ = load_model(tmp_path, weights="ema-0.5")
    expected = dict(halved.parameters.views(halved.further_emas["ema-0.5"]))
    assert all(torch.equal(expected[name], p) for name, p in model.named_parameters())
    with pytest.raises(CheckpointFormatError, match=r"ema-0\.9\.safetensors"):
        load_model(tmp_path, weights="ema-0.9")


@pytest.mark.parametrize("decays", [(1.0,), (0.0,), (0.5, 0.5)])
def test_decays_that_are_no_averages_are_refused(decays: tuple[float, ...]) -> None:
    """1 would keep the initial weights for ever, and one name is one file."""
    with pytest.raises(ConfigError, match="ema_decays"):
        TrainingConfig(num_steps=1, ema_decays=decays)
