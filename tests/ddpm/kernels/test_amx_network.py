"""The network of AMX kernels computes what torch's does, whoever's neighbours images are."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm.compute import ComputeDecision, Workload, decide_compute
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.kernels.amx.network import TiledUNet, fits_tiles
from ddpm.network.dropout import set_dropout_keys
from ddpm.network.unet import UNet
from ddpm.training.checkpoint import load_state, save_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from tests.support.amx import AMX_OBSTACLE
from tests.support.tiles import draw, relative_error

pytestmark = pytest.mark.skipif(AMX_OBSTACLE is not None, reason=f"no AMX kernels: {AMX_OBSTACLE}")
ROOT = Path(__file__).resolve().parents[3]
SMALL = UNetConfig(
    channels=32,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(4,),
    num_heads=2,
    dropout=0.1,
)
AMX = ComputeDecision(precision="bf16", kernels="amx")


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trained(config: UNetConfig = SMALL, shape: tuple[int, int, int] = (3, 8, 8)) -> UNet:
    """Return a network in which no layer is zero."""
    model = UNet(config, shape)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            if not parameter.any():
                parameter.copy_(draw(*parameter.shape, seed=index) / 20)
    return model


def _gradients(model: UNet, forward: nn.Module | TiledUNet, x: Tensor, t: Tensor) -> Tensor:
    model.zero_grad()
    (forward(x, t) * draw(*x.shape, seed=5)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_network_and_its_gradient_are_as_near_to_float32_as_those_of_torch() -> None:
    """With dropout, attention, and a batch that fills no whole number of blocks; under autocast."""
    model = _trained().train()
    set_dropout_keys(model, 1, first_image=5)
    x, t = draw(20, 3, 8, 8), torch.arange(20) * 50
    expected, gradients = model(x, t), _gradients(model, model, x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch_error = relative_error(model(x, t), expected)
        torch_gradient_error = relative_error(_gradients(model, model, x, t), gradients)
        tiled = TiledUNet(model)
        assert relative_error(tiled(x, t), expected) < 1.2 * torch_error
        assert (
            relative_error(_gradients(model, tiled, x, t), gradients) < 1.2 * torch_gradient_error
        )


@torch.no_grad()
def test_image_has_the_same_bits_whatever_its_batch_and_threads() -> None:
    """The promise of the fleet: image k is the same on 1 worker or on 64."""
    network = TiledUNet(_trained().bfloat16().eval(), frozen=True)
    x, t = draw(48, 3, 8, 8), torch.arange(48) * 20
    whole = network(x, t)
    with _threads(2):
        assert torch.equal(network(x, t), whole)
    assert torch.equal(network(x[17:], t[17:]), whole[17:])
    assert torch.equal(network(x.flip(0), t.flip(0)).flip(0), whole)
    assert torch.equal(network(x[:1], t[:1]), whole[:1])


@torch.no_grad()
def test_frozen_network_predicts_what_the_other_does() -> None:
    """Weights that are packed once are those that would be packed each time."""
    model = _trained().bfloat16().eval()
    x, t = draw(16, 3, 8, 8), torch.arange(16)
    assert torch.equal(TiledUNet(model, frozen=True)(x, t), TiledUNet(model)(x, t))


def test_network_is_told_of_labels_and_of_what_was_done_to_its_images() -> None:
    """A batch that fills no whole block: what is told of an image must not go to another."""
    config = replace(SMALL, num_classes=3, augmentation=True)
    model = _trained(config).eval()
    x, t, labels = draw(20, 3, 8, 8), torch.arange(20) * 50, torch.arange(20) % 4
    told = draw(20, 9, seed=3)
    with torch.no_grad():
        expected = model(x, t, labels, told)
        untold = relative_error(model(x, t, labels), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = TiledUNet(model)(x, t, labels, told)
    assert relative_error(found, expected) < untold / 4


def test_gradients_are_written_over_earlier_ones_if_that_is_asked_for() -> None:
    """Those of convolutions' weights; whoever asks sets only the others to zero."""
    model = _trained()
    x, t = draw(16, 3, 8, 8), torch.arange(16)
    expected = _gradients(model, TiledUNet(model), x, t)
    network = TiledUNet(model)
    overwritten = network.overwrite_gradients()
    assert overwritten
    for parameter in model.parameters():
        assert parameter.grad is not None
        torch.nn.init.constant_(parameter.grad, 7.0 if parameter in overwritten else 0.0)
    buffers = [parameter.grad for parameter in model.parameters()]
    (network(x, t) * draw(*x.shape, seed=5)).sum().backward()
    assert all(p.grad is buffer for p, buffer in zip(model.parameters(), buffers, strict=True))
    torch.testing.assert_close(
        torch.cat([buffer.flatten() for buffer in buffers if buffer is not None]), expected
    )


def test_gradient_is_added_to_one_that_is_there() -> None:
    """As autograd does: whoever sums over several calls, and buffers that hold all gradients."""
    model = _trained()
    network, x, t = TiledUNet(model), draw(16, 3, 8, 8), torch.arange(16)
    once = _gradients(model, network, x, t)
    buffers = [parameter.grad for parameter in model.parameters()]
    (network(x, t) * draw(*x.shape, seed=5)).sum().backward()
    for parameter, buffer in zip(model.parameters(), buffers, strict=True):
        assert parameter.grad is buffer
    twice = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(twice, 2 * once)


def _training(compute: ComputeDecision) -> TrainState:
    return TrainState(
        unet_config=SMALL,
        diffusion_config=DiffusionConfig(num_timesteps=100),
        config=TrainingConfig(num_steps=40, global_batch_size=16, learning_rate=1e-3),
        image_shape=(1, 8, 8),
        compute=compute,
    )


def _losses(state: TrainState, until_step: int) -> list[float]:
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    dataset = ImageDataset(images, np.arange(64))
    return [metrics.loss for metrics in train_steps(state, dataset, until_step=until_step)]


@pytest.mark.slow
def test_training_goes_on_from_changed_weights_and_follows_that_of_float32() -> None:
    """Weights are packed anew in each step; 40 steps on, losses still agree."""
    losses, expected = _losses(_training(AMX), 40), _losses(_training(ComputeDecision()), 40)
    assert losses[-1] < 0.5 * losses[0]
    assert losses == pytest.approx(expected, rel=0.05)


def test_killed_training_ends_with_the_bits_of_one_never_killed(tmp_path: Path) -> None:
    """Dropout included, with another number of threads."""
    whole, killed, resumed = (_training(AMX) for _ in range(3))
    _losses(whole, 8)
    _losses(killed, 3)
    save_state(killed, tmp_path)
    load_state(resumed, tmp_path)
    with _threads(2):
        _losses(resumed, 8)
    assert torch.equal(resumed.parameters.values, whole.parameters.values)
    assert torch.equal(resumed.ema, whole.ema)


def test_kernels_are_taken_where_they_fit_and_nothing_else_was_asked_for() -> None:
    """The choice changes bits: it is told by what a job asks, and recorded."""
    assert fits_tiles(SMALL, 16)
    assert fits_tiles(SMALL, 11)
    assert not fits_tiles(SMALL, 10)
    assert not fits_tiles(SMALL, 17)
    assert not fits_tiles(UNetConfig(channels=48), 16)
    asked: dict[str, Any] = {"num_threads": 1, "worth_compiling": False, "device_kind": "cpu"}
    decide: dict[str, Any] = {"precision": "auto", "compile_request": "auto"}
    fits = Workload(network=SMALL, images_per_pass=16)
    decision = decide_compute(fits, **asked, **decide)
    assert (decision.kernels, decision.compiled) == ("amx", False)
    assert "AMX kernels" in decision.reason
    for other in ({"precision": "float32"}, {"compile_request": False}):
        assert decide_compute(fits, **asked, **(decide | other)).kernels == "torch"
    assert decide_compute(replace(fits, images_per_pass=10), **asked, **decide).kernels == "torch"


@pytest.mark.slow
def test_compiled_kernels_are_kept_and_a_broken_compiler_is_an_obstacle(tmp_path: Path) -> None:
    """Workers of a machine compile once; a job on one that cannot says why and goes on without."""
    program = (
        "import sys; from pathlib import Path;"
        "from ddpm.kernels.amx.kernels import kernels_obstacle;"
        "print(kernels_obstacle(Path(sys.argv[1])))"
    )

    def obstacle(path: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "kept")],
            cwd=ROOT,
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    compilers = tmp_path / "bin"
    compilers.mkdir()
    assert obstacle(str(compilers)) == "there is no g++"
    broken = compilers / "g++"
    broken.write_text("#!/bin/sh\necho 'x.cpp:1: error: no such thing' >&2\nexit 1\n")
    broken.chmod(0o755)
    assert "cannot compile the AMX kernels: x.cpp:1: error: no such thing" in obstacle(
        f"{compilers}:/bin:/usr/bin"
    )
    assert not list((tmp_path / "kept").iterdir())
    assert obstacle("/bin:/usr/bin") == "None"
    kept = list((tmp_path / "kept").iterdir())
    assert [path.suffix for path in kept] == [".so"]
    written = kept[0].stat().st_mtime_ns
    assert obstacle("/bin:/usr/bin") == "None"
    assert kept[0].stat().st_mtime_ns == written
