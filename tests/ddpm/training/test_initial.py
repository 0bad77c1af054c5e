"""A training starts from another's weights, and what cannot be taken over is named."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.errors import CheckpointFormatError
from ddpm.training.checkpoint import save_state
from ddpm.training.initial import start_from
from ddpm.training.loop import TrainState

UNET = UNetConfig(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, dropout=0.0)
DIFFUSION = DiffusionConfig(num_timesteps=50)
SHAPE = (1, 8, 8)


def _state(
    unet: UNetConfig = UNET,
    diffusion: DiffusionConfig = DIFFUSION,
    shape: tuple[int, int, int] = SHAPE,
    seed: int = 1,
) -> TrainState:
    return TrainState(
        unet_config=unet,
        diffusion_config=diffusion,
        config=TrainingConfig(num_steps=8, global_batch_size=4, seed=seed),
        image_shape=shape,
        compute=ComputeDecision(),
    )


@pytest.fixture
def source(tmp_path: Path) -> tuple[TrainState, Path]:
    """A trained state whose average and weights differ, and its folder."""
    state = _state(seed=0)
    noise = torch.randn(state.ema.shape, generator=torch.Generator().manual_seed(0))
    state.ema.add_(noise, alpha=0.1)
    state.step = 5
    save_state(state, tmp_path)
    return state, tmp_path


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_weights_and_average_begin_as_those_of_the_other(
    source: tuple[TrainState, Path], weights: Any
) -> None:
    """The average, too: its own first weights would weigh on it for thousands of steps."""
    theirs, folder = source
    ours = _state()
    info = start_from(ours, folder, weights=weights)
    wanted = theirs.ema if weights == "ema" else theirs.parameters.values
    for (name, found), (_, told) in zip(
        ours.parameters.views(ours.parameters.values), theirs.parameters.views(wanted), strict=True
    ):
        assert torch.equal(found, told), name
    assert torch.equal(ours.ema, ours.parameters.values)
    assert (ours.step, info.step) == (0, 5)
    assert not ours.optimizer.moments["exp_avg"].any()


def test_an_embedding_of_labels_may_be_new(source: tuple[TrainState, Path]) -> None:
    """A network that drew anything learns to draw by class."""
    theirs, folder = source
    ours = _state(dataclasses.replace(UNET, num_classes=3, dropout=0.1))
    weights = dict(ours.model.named_parameters())
    before = weights["label_embedding.weight"].detach().clone()
    start_from(ours, folder)
    assert torch.equal(weights["label_embedding.weight"], before)
    told = dict(theirs.parameters.views(theirs.ema))
    assert torch.equal(weights["conv_in.weight"], told["conv_in.weight"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"unet": dataclasses.replace(UNET, channels=16)}, "has model.channels 8, and this trai"),
        ({"unet": dataclasses.replace(UNET, num_heads=2)}, "has model.num_heads 1"),
        ({"shape": (3, 8, 8)}, r"has images of \(C, H, W\) \(1, 8, 8\)"),
        ({"diffusion": dataclasses.replace(DIFFUSION, prediction="v")}, "diffusion.prediction eps"),
        (
            {"diffusion": dataclasses.replace(DIFFUSION, variance="learned")},
            "diffusion.outputs_per_channel 1",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    source: tuple[TrainState, Path], other: dict[str, Any], message: str
) -> None:
    """Heads and predictions have no shape that would tell: they would train on nonsense."""
    ours = _state(**other)
    before = ours.parameters.values.clone()
    with pytest.raises(CheckpointFormatError, match=message):
        start_from(ours, source[1])
    assert torch.equal(ours.parameters.values, before)
