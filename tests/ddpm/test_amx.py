"""The AMX kernels compute what torch computes, whoever's neighbours images are."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.amx.attention import attend
from ddpm.amx.geometry import ConvolutionKind, output_size
from ddpm.amx.kernels import kernels_obstacle
from ddpm.amx.layer import Layer
from ddpm.amx.maps import (
    CHANNELS,
    IMAGES,
    Maps,
    empty_maps,
    images_of_tiles,
    pixels_of_tiles,
    tiles_of_images,
    tiles_of_pixels,
)
from ddpm.amx.network import TiledUNet, fits_tiles
from ddpm.checkpoint import load_state, save_state
from ddpm.compute import ComputeDecision, decide_compute
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.data import ImageDataset
from ddpm.dropout import Dropout, set_dropout_keys
from ddpm.training import TrainState, train_steps
from ddpm.unet import UNet

pytestmark = pytest.mark.skipif(
    kernels_obstacle() is not None, reason=f"no AMX kernels: {kernels_obstacle()}"
)
ROOT = Path(__file__).resolve().parents[2]
SMALL = UNetConfig(
    channels=32,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(4,),
    num_heads=2,
    dropout=0.1,
)
AMX = ComputeDecision(precision="bf16", kernels="amx")
KINDS: tuple[ConvolutionKind, ...] = ("same", "down", "up", "point")


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(2).transpose(1, 2)


def _maps(images: Tensor) -> Maps:
    """Lay images (B, C, H, W) out as tiles, with their sums."""
    values = tiles_of_pixels(_pixels(images.bfloat16()), *images.shape[2:])
    blocks, channels = len(images) // IMAGES, images.shape[1]
    pixels = _pixels(images.bfloat16().float()).view(blocks, IMAGES, -1, channels)
    sums = torch.stack([pixels.sum(dim=2), pixels.square().sum(dim=2)], dim=1)
    return Maps(values, sums[None])


def _images(values: Tensor) -> Tensor:
    height, width = values.shape[2:4]
    return pixels_of_tiles(values).float().transpose(1, 2).unflatten(2, (height, width))


def _error(ours: Tensor, expected: Tensor) -> float:
    difference = ours.detach().double() - expected.detach().double()
    return float(difference.norm() / expected.detach().double().norm())


def _draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16().float()


def _plain_convolution(kind: ConvolutionKind, x: Tensor, module: nn.Conv2d) -> Tensor:
    weight, bias = module.weight.double(), module.bias.double()
    if kind == "up":
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    if kind == "down":
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
    return F.conv2d(x, weight, bias, padding=module.padding)


def _convolution(kind: ConvolutionKind, in_channels: int, out_channels: int) -> nn.Conv2d:
    size = 1 if kind == "point" else 3
    module = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    with torch.no_grad():
        weight = _draw(*module.weight.shape, seed=1) / (in_channels * size**2) ** 0.5
        module.weight.copy_(weight.bfloat16())
        module.bias.copy_(_draw(out_channels, seed=2))
    return module.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "batch_size", "in_channels", "out_channels"),
    [((8, 8), 16, 64, 32), ((2, 6), 32, 32, 96), ((20, 4), 16, 32, 1)],
)
def test_convolutions_and_their_gradients_are_those_of_float64(
    kind: ConvolutionKind,
    size: tuple[int, int],
    batch_size: int,
    in_channels: int,
    out_channels: int,
) -> None:
    """Of every kind, at borders and where chunks of rows meet, to bfloat16's rounding."""
    module = _convolution(kind, in_channels, out_channels)
    images = _draw(batch_size, in_channels, *size)
    maps = _maps(images)
    values = maps.values.requires_grad_()
    y = Layer(kind, module)(Maps(values, maps.sums)).output.values
    x64 = images.double().requires_grad_()
    expected = _plain_convolution(kind, x64, module)
    assert expected.shape[2:] == output_size(kind, *size)
    assert _error(_images(y)[:, :out_channels], expected) < 4e-3
    assert not _images(y)[:, out_channels:].any()

    grad = _draw(*expected.shape, seed=3)
    padded = F.pad(grad, (0, 0, 0, 0, 0, -out_channels % CHANNELS))
    wanted = (values, module.weight, module.bias)
    ours = torch.autograd.grad(y, wanted, _maps(padded).values)
    exact = torch.autograd.grad(expected, (x64, module.weight, module.bias), grad.double())
    assert _error(_images(ours[0]), exact[0]) < 4e-3
    assert _error(ours[1], exact[1]) < 1e-5
    assert _error(ours[2], exact[2]) < 1e-5


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_whole_layer_and_its_gradient_are_those_of_float64(offset: float) -> None:
    """Two inputs, group norm over both, SiLU, dropout, embedding and residual."""
    module, norm = _convolution("same", 96, 64), nn.GroupNorm(32, 96, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(1 + _draw(96, seed=4) / 4)
        norm.bias.copy_(_draw(96, seed=5))
    dropout = Dropout(0.3).train()
    set_dropout_keys(dropout, 7, first_image=3)
    parts = [(_draw(32, channels, 10, 6, seed=channels) + offset) for channels in (64, 32)]
    embedding, residual = _draw(32, 64, seed=8), _draw(32, 64, 10, 6, seed=9)
    inputs = [_maps(part) for part in parts]
    values = [part.values.requires_grad_() for part in inputs]
    shift, added = embedding.clone().requires_grad_(), _maps(residual).values.requires_grad_()
    layer = Layer("same", module, norm=norm, dropout=dropout)
    output, _ = layer(*inputs, embedding=shift, residual=added)

    exact_parts = [_images(part).double().requires_grad_() for part in (v.detach() for v in values)]
    exact_shift, exact_added = embedding.double().requires_grad_(), residual.double()
    exact_added.requires_grad_()
    weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
    weight.requires_grad_(), bias.requires_grad_()
    normalised = F.group_norm(torch.cat(exact_parts, dim=1), 32, weight, bias, norm.eps)
    convolved = _plain_convolution("same", dropout(F.silu(normalised)), module)
    expected = convolved + exact_shift[:, :, None, None] + exact_added
    assert _error(_images(output.values), expected) < 4e-3
    pixels = _images(output.values.detach())
    torch.testing.assert_close(
        output.sums.sum(dim=0)[:, 0].flatten(0, 1), pixels.sum(dim=(2, 3)), rtol=1e-4, atol=1e-3
    )

    grad = _draw(*expected.shape, seed=6)
    wanted = (*values, shift, added, norm.weight, norm.bias, module.weight)
    ours = torch.autograd.grad(output.values, wanted, _maps(grad).values)
    of_exact = (*exact_parts, exact_shift, exact_added, weight, bias, module.weight)
    exact = torch.autograd.grad(expected, of_exact, grad.double())
    images = [_images(part) for part in ours[:2]]
    got = [*images, ours[2], _images(ours[3]), *ours[4:]]
    for gradient, expected_gradient in zip(got, exact, strict=True):
        assert _error(gradient, expected_gradient) < 1e-2


@pytest.mark.parametrize(
    ("channels", "num_heads", "size"),
    [(64, 2, (4, 4)), (96, 3, (12, 4)), (32, 1, (8, 8)), (128, 1, (16, 16))],
)
def test_attention_is_that_of_float64(channels: int, num_heads: int, size: tuple[int, int]) -> None:
    """And so is its gradient, also where pixels are no multiple of 32."""
    by_image = empty_maps(2, 3 * channels // CHANNELS, *size, by_image=True)
    by_image.copy_(_maps(_draw(32, 3 * channels, *size)).values).requires_grad_()
    with torch.no_grad():
        drawn = attend(by_image, num_heads)
    attended = attend(by_image, num_heads)
    assert torch.equal(attended, drawn)
    exact = by_image.detach().double().requires_grad_()
    q, k, v = pixels_of_tiles(exact).unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert _error(pixels_of_tiles(attended), expected) < 4e-3
    grad = pixels_of_tiles(_maps(_draw(32, channels, *size, seed=1)).values)
    (ours,) = torch.autograd.grad(attended, by_image, tiles_of_pixels(grad, *size))
    (exact_grad,) = torch.autograd.grad(expected, exact, grad.double())
    for part, exact_part in zip(ours.chunk(3, dim=1), exact_grad.chunk(3, dim=1), strict=True):
        assert _error(part, exact_part) < 1e-2


def test_attention_of_odd_maps_is_torchs() -> None:
    """The kernels take multiples of 16 pixels."""
    odd = empty_maps(1, 3, 3, 5, by_image=True)
    odd.copy_(_maps(_draw(16, 96, 3, 5)).values)
    q, k, v = pixels_of_tiles(odd).double().unflatten(2, (3, 1, -1)).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v)[:, 0]
    assert _error(pixels_of_tiles(attend(odd, 1)), expected) < 2e-2


def test_layouts_are_undone() -> None:
    """Images come back as they went in, and channels that there are not are zeros."""
    images = _draw(32, 3, 5, 7)
    tiles = tiles_of_images(images)
    assert torch.equal(images_of_tiles(tiles, 3), images)
    assert not tiles[..., 3:].any()
    assert torch.equal(tiles_of_pixels(pixels_of_tiles(tiles), 5, 7), tiles)


def _trained(config: UNetConfig = SMALL, shape: tuple[int, int, int] = (3, 8, 8)) -> UNet:
    """Return a network in which no layer is zero."""
    model = UNet(config, shape).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            if not parameter.any():
                parameter.copy_(_draw(*parameter.shape, seed=index) / 20)
    return model


def _gradients(model: UNet, forward: nn.Module | TiledUNet, x: Tensor, t: Tensor) -> Tensor:
    model.zero_grad()
    (forward(x, t) * _draw(*x.shape, seed=5)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_network_and_its_gradient_are_as_near_to_float32_as_those_of_torch() -> None:
    """With dropout, attention, and a batch that fills no whole number of blocks; under autocast."""
    model = _trained().train()
    set_dropout_keys(model, 1, first_image=5)
    x, t = _draw(20, 3, 8, 8), torch.arange(20) * 50
    expected, gradients = model(x, t), _gradients(model, model, x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch_error = _error(model(x, t), expected)
        torch_gradient_error = _error(_gradients(model, model, x, t), gradients)
        tiled = TiledUNet(model)
        assert _error(tiled(x, t), expected) < 1.2 * torch_error
        assert _error(_gradients(model, tiled, x, t), gradients) < 1.2 * torch_gradient_error


@torch.no_grad()
def test_image_has_the_same_bits_whatever_its_batch_and_threads() -> None:
    """The promise of the fleet: image k is the same on 1 worker or on 64."""
    network = TiledUNet(_trained().bfloat16().eval(), frozen=True)
    x, t = _draw(48, 3, 8, 8), torch.arange(48) * 20
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
    x, t = _draw(16, 3, 8, 8), torch.arange(16)
    assert torch.equal(TiledUNet(model, frozen=True)(x, t), TiledUNet(model)(x, t))


def test_gradient_is_added_to_one_that_is_there() -> None:
    """As autograd does: whoever sums over several calls, and buffers that hold all gradients."""
    model = _trained()
    network, x, t = TiledUNet(model), _draw(16, 3, 8, 8), torch.arange(16)
    once = _gradients(model, network, x, t)
    buffers = [parameter.grad for parameter in model.parameters()]
    (network(x, t) * _draw(*x.shape, seed=5)).sum().backward()
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
    asked = {"num_threads": 1, "worth_compiling": False, "device_kind": "cpu"}
    decide = {"precision": "auto", "compile_request": "auto", "fits_tiles": True}
    decision = decide_compute(**asked, **decide)
    assert (decision.kernels, decision.compiled) == ("amx", False)
    assert "AMX kernels" in decision.reason
    for other in ({"precision": "float32"}, {"compile_request": False}, {"fits_tiles": False}):
        assert decide_compute(**asked, **(decide | other)).kernels == "torch"


def test_compiled_kernels_are_kept_and_a_broken_compiler_is_an_obstacle(tmp_path: Path) -> None:
    """Workers of a machine compile once; a job on one that cannot says why and goes on without."""
    program = (
        "import sys; from pathlib import Path; from ddpm.amx.kernels import kernels_obstacle;"
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
