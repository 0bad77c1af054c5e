"""Networks of other packages: found by name, tried before they are used, kept to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.compute import ComputeDecision, Workload, decide_compute
from ddpm.config import ConfigError, DiffusionConfig, OwnConfig, TrainingConfig
from ddpm.errors import CheckpointFormatError, ForeignModelError
from ddpm.exchange.networks import unet_there
from ddpm.network.own import NetworkShape, full_settings, identity_of, installed_networks
from ddpm.network.own_trial import try_network
from ddpm.training.checkpoint import load_model, load_state, save_state
from ddpm.training.initial import start_from
from ddpm.training.loop import TrainState
from tests.support.golden import digest
from tests.support.own_networks import forget, install, install_example
from tests.support.small_training import small_state, train

SMALL = {"width": 16, "depth": 1, "num_heads": 2, "dropout": 0.2}
SHAPE = NetworkShape((1, 8, 8), 1, 3)
PLAIN = """
import torch
from dataclasses import dataclass
from torch import nn
from ddpm.network.own import OwnNetwork

@dataclass(frozen=True)
class Config:
    width: int = 4

class Net(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.conv = nn.Conv2d(shape.image_shape[0], shape.out_channels, 3, padding=1)
        {init}
    def forward(self, x_t, t, labels):
        {forward}

NETWORK = OwnNetwork(config=Config, build={build})
"""


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_example(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    forget()


def own(num_classes: Any = 0, **settings: Any) -> OwnConfig:
    """Return the example's network with some of its settings."""
    given = {"network": "dit", "num_classes": num_classes, **SMALL, **settings}
    return full_settings(OwnConfig.from_json(given))


def state_of(config: OwnConfig, seed: int = 3, **training: Any) -> TrainState:
    """Return a training of a network of another package that took no step."""
    fields = {"num_steps": 6, "global_batch_size": 4, "learning_rate": 1e-2, "seed": seed}
    return TrainState(
        unet_config=config,
        diffusion_config=DiffusionConfig(num_timesteps=50),
        config=TrainingConfig(**{**fields, **training}),
        image_shape=(1, 8, 8),
        compute=ComputeDecision(channels_last=False),
    )


def brought(
    folder: Path, *, init: str = "pass", forward: str = "return self.conv(x_t)", build: str = "Net"
) -> OwnConfig:
    """Install a network of one convolution, perhaps with a fault, and return its name."""
    code = PLAIN.format(init=init, forward=forward, build=build)
    install(folder / "site", code, {"plain": "brought:NETWORK"})
    forget()
    return OwnConfig(network="plain")


def test_a_resumed_training_has_the_bits_of_one_that_went_on(tmp_path: Path) -> None:
    """Its dropout draws from torch's own generator, which no checkpoint holds."""
    config = own(num_classes=3)
    straight = train(state_of(config), 6, num_classes=3)
    half = train(state_of(config), 3, num_classes=3)
    save_state(half, tmp_path / "half")
    torch.manual_seed(12345)  # whatever else has drawn meanwhile
    torch.rand(7)
    resumed = state_of(config)
    load_state(resumed, tmp_path / "half")
    train(resumed, 6, num_classes=3)
    assert torch.equal(resumed.parameters.values, straight.parameters.values)
    assert torch.equal(resumed.ema, straight.ema)
    others = train(state_of(config, seed=4), 6, num_classes=3)
    assert not torch.equal(others.ema, straight.ema)


def test_a_checkpoint_names_the_network_and_gives_it_back(tmp_path: Path) -> None:
    """The weights are the average's, and the sizes are plain values."""
    state = train(state_of(own(num_classes=3)), 2, num_classes=3)
    save_state(state, tmp_path)
    network, info = load_model(tmp_path)
    assert info.unet_config == state.model.config
    assert (tmp_path / "state.json").read_text().count('"network": "dit"') == 1
    x, t, labels = torch.randn(2, 1, 8, 8), torch.tensor([1, 40]), torch.tensor([0, 2])
    state.parameters.values.data.copy_(state.ema)
    expected = state.model.eval().requires_grad_(requires_grad=False)(x, t, labels)
    assert torch.equal(network(x, t, labels), expected)
    assert not torch.equal(network(x, t), network(x, t, labels))  # told none is no class
    assert torch.equal(network(x, t), network(x, t, torch.full((2,), 3)))


def test_classes_reach_the_network_and_their_dropout_too() -> None:
    """A network that is told labels learns otherwise than one that is told none."""
    told = train(state_of(own(num_classes=3), label_dropout=0.0), 4, num_classes=3)
    never = train(state_of(own(num_classes=3), label_dropout=1.0), 4, num_classes=3)
    assert digest(told.ema) != digest(never.ema)


def test_weights_go_from_one_training_to_another_of_the_same_network(tmp_path: Path) -> None:
    """What differs is named; the U-Net's weights are no start for it."""
    save_state(train(state_of(own()), 2), tmp_path / "own")
    save_state(train(small_state(), 1), tmp_path / "unet")
    state = state_of(own(), seed=9)
    start_from(state, tmp_path / "own", weights="model")
    assert torch.equal(state.parameters.values, state.ema)
    with pytest.raises(CheckpointFormatError, match=r"has model.width 16, and this training 32"):
        start_from(state_of(own(width=32)), tmp_path / "own")
    with pytest.raises(CheckpointFormatError, match=r"has model.network None, .* dit"):
        start_from(state_of(own()), tmp_path / "unet")
    with pytest.raises(CheckpointFormatError, match=r"has model.network dit, .* None"):
        start_from(small_state(), tmp_path / "own")


def test_the_trial_counts_what_can_be_trained() -> None:
    """The plan tells the number."""
    config = own(num_classes=3)
    state = state_of(config)
    assert try_network(config, SHAPE) == sum(p.numel() for p in state.model.parameters())
    assert "dit" in installed_networks()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"build": "lambda config, shape: 7"}, "builds a torch.nn.Module, not int"),
        ({"build": "lambda config, shape: Net(config)"}, r"can be built \(TypeError"),
        ({"build": "lambda config, shape: nn.Identity()"}, "one with parameters"),
        ({"forward": "return self.conv(x_t)[:, :, :4]"}, r"gives \(2, 1, 8, 8\) for .*4, 8\)"),
        ({"forward": "return [x_t]"}, "gives a tensor, not list"),
        ({"forward": "return self.conv(x_t) / 0"}, "finite floats"),
        ({"forward": "return self.conv(x_t.view(3))"}, "takes such images .RuntimeError"),
        ({"init": "self.small = nn.Parameter(torch.zeros(1).half())"}, "float32 parameters .small"),
        ({"init": "self.conv.bias.requires_grad_(False)"}, "parameters all learn .conv.bias"),
        ({"init": "self.register_buffer('b', torch.rand(2))"}, "buffers follow .* .b is drawn"),
        (
            {
                "init": "self.norm = nn.BatchNorm2d(1)",
                "forward": "return self.norm(self.conv(x_t))",
            },
            "buffers stay .norm.running_mean",
        ),
        (
            {"init": "import os; self.conv.bias.data[0] = int.from_bytes(os.urandom(2), 'big')"},
            "weights follow from torch's seed .conv.bias",
        ),
    ],
)
def test_what_could_not_be_trained_or_kept_is_told(
    tmp_path: Path, fault: dict[str, str], told: str
) -> None:
    """Hours later, or at a resume, it would be a riddle."""
    with pytest.raises(ConfigError, match=told) as caught:
        try_network(brought(tmp_path, **fault), replace(SHAPE, num_classes=0))
    assert caught.value.field == "network"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"network": "dti"}, r"one that is installed \(dit\), not 'dti'"),
        ({"network": "dit", "widht": 8}, r"widht must be left out: did you mean width\?"),
        ({"network": "dit", "width": 31}, "width must be a multiple of 8, not 31"),
        ({"network": "dit", "patch_size": 3}, "patch_size must be a divisor of 8 and 8"),
        ({"network": "gone"}, "one that loads .*No module named 'nowhere'"),
        ({"network": "other"}, "an OwnNetwork, which brought:Net is not"),
    ],
)
def test_names_and_settings_are_looked_at(tmp_path: Path, asked: dict[str, Any], told: str) -> None:
    """As those of the U-Net are."""
    points = {"gone": "nowhere:NETWORK", "other": "brought:Net"}
    brought(tmp_path)
    code = (tmp_path / "site/brought.py").read_text()
    install(tmp_path / "site", code, points)
    forget()
    with pytest.raises(ConfigError, match=told):
        try_network(full_settings(OwnConfig.from_json(asked)), replace(SHAPE, num_classes=0))


def test_a_networks_code_is_known_by_its_package_and_its_sources(tmp_path: Path) -> None:
    """Two versions, or one that was edited in place, are told apart."""
    first = identity_of(brought(tmp_path).network)
    again = identity_of(brought(tmp_path).network)
    edited = identity_of(brought(tmp_path, forward="return 2 * self.conv(x_t)").network)
    assert first == again
    assert (first.package, first.version) == ("brought", "1.0")
    assert edited.sha256 != first.sha256


def test_it_is_computed_as_it_is_written_unless_compiling_was_asked_for() -> None:
    """Nothing is known of its layers; the record says so."""
    asked: dict[str, Any] = {"precision": "float32", "num_threads": 1, "device_kind": "cpu"}
    config = own()
    decided = decide_compute(
        Workload(network=config, images_per_pass=64),
        **asked,
        compile_request="auto",
        worth_compiling=True,
    )
    assert (decided.kernels, decided.compiled, decided.channels_last) == ("torch", False, False)
    assert "dit is another package's" in decided.reason
    assert "eager, since nobody asked to compile" in decided.reason


def test_what_has_no_counterpart_elsewhere_is_refused_by_name() -> None:
    """Diffusers would not know what to do with the weights."""
    with pytest.raises(ForeignModelError, match=r"model\.network: dit is another package's"):
        unet_there(state_of(own()).model)
