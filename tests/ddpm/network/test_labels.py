"""A network that is told classes: what labels change, and what they leave as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm.compute import ComputeDecision
from ddpm.config import ConfigError, DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.network.build import build_network
from ddpm.network.unet import UNet
from ddpm.network.unet_size import count_parameters
from ddpm.process.noise import dropped_labels
from ddpm.training.checkpoint import load_model, load_state, save_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps

SIZES = {"channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1, "dropout": 0.0}
SHAPE = (1, 8, 8)
T = torch.tensor([3, 3])


def network(num_classes: int) -> UNet:
    """Return a network whose last layers say something."""
    model = UNet(UNetConfig(num_classes=num_classes, **SIZES), SHAPE, seed=1)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if name.endswith("conv2.weight") or name == "conv_out.weight":
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2), std=0.1)
    return model.eval()


def test_labels_change_the_output_and_no_label_is_a_class_of_its_own() -> None:
    """A label that is silently ignored costs a whole training."""
    model, x = network(3), torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    zero, one, none = (model(x, T, torch.full((2,), label)) for label in (0, 1, 3))
    assert not torch.allclose(zero, one)
    assert not torch.allclose(zero, none)
    assert torch.equal(none, model(x, T))


def test_a_network_without_labels_is_what_it_was() -> None:
    """Its weights and its output must not know that labels exist."""
    plain, labelled = network(0), network(3)
    named = dict(labelled.named_parameters())
    assert set(named) - {name for name, _ in plain.named_parameters()} == {"label_embedding.weight"}
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, named[name]), name


@pytest.mark.parametrize("variance", ["fixed_large", "learned"])
@pytest.mark.parametrize("num_classes", [0, 1, 10])
def test_parameters_are_counted_with_labels_and_variance(variance: str, num_classes: int) -> None:
    """The plan's memory is reckoned from the count."""
    config = UNetConfig(num_classes=num_classes, **SIZES)  # type: ignore[arg-type]
    diffusion = DiffusionConfig(variance=variance)  # type: ignore[arg-type]
    model = build_network(config, diffusion, SHAPE)
    counted = count_parameters(config, SHAPE, SHAPE[0] * diffusion.outputs_per_channel)
    assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_labels_are_dropped_by_place_and_step_in_the_share_asked_for() -> None:
    """Guidance needs the network without labels; who drops must not depend on the worker."""
    positions = torch.arange(20_000)
    dropped = dropped_labels(7, 5, positions, 0.1)
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.007)
    assert torch.equal(dropped[500:600], dropped_labels(7, 5, positions[500:600], 0.1))
    assert not torch.equal(dropped, dropped_labels(7, 6, positions, 0.1))
    assert not dropped_labels(7, 5, positions, 0.0).any()
    assert dropped_labels(7, 5, positions, 1.0).all()


def labelled_set() -> ImageDataset:
    """Return images whose brightness is their class."""
    labels = np.arange(64) % 2
    images = np.broadcast_to(labels[:, None, None, None] * 200, (64, 8, 8, 1)).astype(np.uint8)
    return ImageDataset(images, np.arange(64), labels)


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["fixed_large", "learned"])
def test_training_learns_the_classes_and_goes_on_to_the_same_bits(
    variance: str, tmp_path: Path
) -> None:
    """The labels of a step are those of its images, also after a resume."""
    folder = tmp_path

    def fresh() -> TrainState:
        return TrainState(
            unet_config=UNetConfig(num_classes=2, **SIZES),  # type: ignore[arg-type]
            diffusion_config=DiffusionConfig(num_timesteps=50, variance=variance),  # type: ignore[arg-type]
            config=TrainingConfig(
                num_steps=40, global_batch_size=16, learning_rate=3e-3, ema_decay=0.5
            ),
            image_shape=SHAPE,
            compute=ComputeDecision(),
        )

    state, images = fresh(), labelled_set()
    losses = [metrics.loss for metrics in train_steps(state, images, until_step=40)]
    assert np.mean(losses[-10:]) < 0.7 * losses[0]
    assert state.model.label_embedding is not None
    learned, drawn = (
        dict(one.model.named_parameters())["label_embedding.weight"] for one in (state, fresh())
    )
    assert not torch.equal(learned, drawn)
    again = fresh()
    list(train_steps(again, images, until_step=13))
    save_state(again, folder)
    resumed = fresh()
    load_state(resumed, folder)
    list(train_steps(resumed, images, until_step=40))
    assert torch.equal(resumed.parameters.values, state.parameters.values)
    save_state(state, folder)
    model, info = load_model(folder)
    assert info.unet_config.num_classes == 2
    assert model.out_channels == (2 if variance == "learned" else 1)


@pytest.mark.parametrize(
    ("asked", "classes", "told"),
    [("auto", 0, "no labels"), (3, 0, "no labels"), (3, 4, "at least 4, the classes of the data")],
)
def test_a_network_that_does_not_fit_the_classes_is_refused(
    asked: object, classes: int, told: str
) -> None:
    """A label beyond the embedding would be an error in the middle of a step."""
    with pytest.raises(ConfigError, match=told):
        UNetConfig(num_classes=asked).for_classes(classes)  # type: ignore[arg-type]


def test_classes_are_those_of_the_data_set_where_they_are_left_open() -> None:
    """More than the set has may be asked for: another set may follow."""
    assert UNetConfig(num_classes="auto").for_classes(10).num_classes == 10
    assert UNetConfig(num_classes=12).for_classes(10).num_classes == 12
    assert UNetConfig().for_classes(10).num_classes == 0


@pytest.mark.parametrize(("channels", "multipliers"), [(8, (1, 2)), (32, (1,)), (8, (1, 8))])
def test_narrow_networks_that_lose_the_embedding_say_so(
    channels: int, multipliers: tuple[int, ...]
) -> None:
    """A group norm of one channel a group takes away what was added to the channel.

    Such a network trains and draws, and learns of no timestep: its user is told at submit.
    """
    config = UNetConfig(
        channels=channels, channel_multipliers=multipliers, num_res_blocks=1, norm_eps=1e-12
    )
    network = UNet(config, (1, 8, 8)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
        x_t = torch.randn(2, 1, 8, 8)
        early, late = (network(x_t, torch.tensor([t, t])) for t in (0, 900))
    assert config.loses_embeddings == torch.allclose(early, late, atol=1e-5)
