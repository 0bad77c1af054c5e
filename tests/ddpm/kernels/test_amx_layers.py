"""The AMX kernels compute what torch computes: layers, attention, and their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.kernels.amx.attention import attend
from ddpm.kernels.amx.geometry import ConvolutionKind, output_size
from ddpm.kernels.amx.layer import Layer
from ddpm.kernels.amx.maps import (
    CHANNELS,
    Maps,
    empty_maps,
    images_of_tiles,
    pixels_of_tiles,
    tiles_of_images,
    tiles_of_pixels,
)
from ddpm.network.dropout import Dropout, set_dropout_keys
from tests.support.amx import AMX_OBSTACLE
from tests.support.tiles import draw, images_of_maps, maps_of_images, relative_error

pytestmark = pytest.mark.skipif(AMX_OBSTACLE is not None, reason=f"no AMX kernels: {AMX_OBSTACLE}")
KINDS: tuple[ConvolutionKind, ...] = ("same", "down", "up", "point")


def _plain_convolution(kind: ConvolutionKind, x: Tensor, module: nn.Conv2d) -> Tensor:
    weight, bias = module.weight.double(), _bias(module).double()
    if kind == "up":
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    if kind == "down":
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
    return F.conv2d(x, weight, bias, padding=module.padding)


def _convolution(kind: ConvolutionKind, in_channels: int, out_channels: int) -> nn.Conv2d:
    size = 1 if kind == "point" else 3
    module = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    with torch.no_grad():
        weight = draw(*module.weight.shape, seed=1) / (in_channels * size**2) ** 0.5
        module.weight.copy_(weight.bfloat16())
        _bias(module).copy_(draw(out_channels, seed=2))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def _bias(module: nn.Conv2d) -> Tensor:
    assert module.bias is not None
    return module.bias


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
    images = draw(batch_size, in_channels, *size)
    maps = maps_of_images(images)
    values = maps.values.requires_grad_()
    y = Layer(kind, module)(Maps(values, maps.sums)).output.values
    x64 = images.double().requires_grad_()
    expected = _plain_convolution(kind, x64, module)
    assert expected.shape[2:] == output_size(kind, *size)
    assert relative_error(images_of_maps(y)[:, :out_channels], expected) < 4e-3
    assert not images_of_maps(y)[:, out_channels:].any()

    grad = draw(*expected.shape, seed=3)
    padded = F.pad(grad, (0, 0, 0, 0, 0, -out_channels % CHANNELS))
    wanted = (values, module.weight, _bias(module))
    ours = torch.autograd.grad(y, wanted, maps_of_images(padded).values)
    exact = torch.autograd.grad(expected, (x64, module.weight, _bias(module)), grad.double())
    assert relative_error(images_of_maps(ours[0]), exact[0]) < 4e-3
    assert relative_error(ours[1], exact[1]) < 1e-5
    assert relative_error(ours[2], exact[2]) < 1e-5


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_whole_layer_and_its_gradient_are_those_of_float64(offset: float) -> None:
    """Two inputs, group norm over both, SiLU, dropout, embedding and residual."""
    module, norm = _convolution("same", 96, 64), nn.GroupNorm(32, 96, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(1 + draw(96, seed=4) / 4)
        norm.bias.copy_(draw(96, seed=5))
    dropout = Dropout(0.3).train()
    set_dropout_keys(dropout, 7, first_image=3)
    parts = [(draw(32, channels, 10, 6, seed=channels) + offset) for channels in (64, 32)]
    embedding, residual = draw(32, 64, seed=8), draw(32, 64, 10, 6, seed=9)
    inputs = [maps_of_images(part) for part in parts]
    values = [part.values.requires_grad_() for part in inputs]
    shift, added = (
        embedding.clone().requires_grad_(),
        maps_of_images(residual).values.requires_grad_(),
    )
    layer = Layer("same", module, norm=norm, dropout=dropout)
    output, _ = layer(*inputs, embedding=shift, residual=added)

    exact_parts = [
        images_of_maps(part).double().requires_grad_() for part in (v.detach() for v in values)
    ]
    exact_shift, exact_added = embedding.double().requires_grad_(), residual.double()
    exact_added.requires_grad_()
    weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
    weight.requires_grad_(), bias.requires_grad_()
    normalised = F.group_norm(torch.cat(exact_parts, dim=1), 32, weight, bias, norm.eps)
    convolved = _plain_convolution("same", dropout(F.silu(normalised)), module)
    expected = convolved + exact_shift[:, :, None, None] + exact_added
    assert relative_error(images_of_maps(output.values), expected) < 4e-3
    pixels = images_of_maps(output.values.detach())
    torch.testing.assert_close(
        output.sums.sum(dim=0)[:, 0].flatten(0, 1), pixels.sum(dim=(2, 3)), rtol=1e-4, atol=1e-3
    )

    grad = draw(*expected.shape, seed=6)
    wanted = (*values, shift, added, norm.weight, norm.bias, module.weight)
    ours = torch.autograd.grad(output.values, wanted, maps_of_images(grad).values)
    of_exact = (*exact_parts, exact_shift, exact_added, weight, bias, module.weight)
    exact = torch.autograd.grad(expected, of_exact, grad.double())
    images = [images_of_maps(part) for part in ours[:2]]
    got = [*images, ours[2], images_of_maps(ours[3]), *ours[4:]]
    for gradient, expected_gradient in zip(got, exact, strict=True):
        assert relative_error(gradient, expected_gradient) < 1e-2


@pytest.mark.parametrize(
    ("channels", "num_heads", "size"),
    [(64, 2, (4, 4)), (96, 3, (12, 4)), (32, 1, (8, 8)), (128, 1, (16, 16))],
)
def test_attention_is_that_of_float64(channels: int, num_heads: int, size: tuple[int, int]) -> None:
    """And so is its gradient, also where pixels are no multiple of 32."""
    by_image = empty_maps(2, 3 * channels // CHANNELS, *size, by_image=True)
    by_image.copy_(maps_of_images(draw(32, 3 * channels, *size)).values).requires_grad_()
    with torch.no_grad():
        drawn = attend(by_image, num_heads)
    attended = attend(by_image, num_heads)
    assert torch.equal(attended, drawn)
    exact = by_image.detach().double().requires_grad_()
    q, k, v = pixels_of_tiles(exact).unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert relative_error(pixels_of_tiles(attended), expected) < 4e-3
    grad = pixels_of_tiles(maps_of_images(draw(32, channels, *size, seed=1)).values)
    (ours,) = torch.autograd.grad(attended, by_image, tiles_of_pixels(grad, *size))
    (exact_grad,) = torch.autograd.grad(expected, exact, grad.double())
    for part, exact_part in zip(ours.chunk(3, dim=1), exact_grad.chunk(3, dim=1), strict=True):
        assert relative_error(part, exact_part) < 1e-2


def test_attention_of_odd_maps_is_torchs() -> None:
    """The kernels take multiples of 16 pixels."""
    odd = empty_maps(1, 3, 3, 5, by_image=True)
    odd.copy_(maps_of_images(draw(16, 96, 3, 5)).values)
    q, k, v = pixels_of_tiles(odd).double().unflatten(2, (3, 1, -1)).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v)[:, 0]
    assert relative_error(pixels_of_tiles(attend(odd, 1)), expected) < 2e-2


def test_layouts_are_undone() -> None:
    """Images come back as they went in, and channels that there are not are zeros."""
    images = draw(32, 3, 5, 7)
    tiles = tiles_of_images(images)
    assert torch.equal(images_of_tiles(tiles, 3), images)
    assert not tiles[..., 3:].any()
    assert torch.equal(tiles_of_pixels(pixels_of_tiles(tiles), 5, 7), tiles)


def test_gradients_of_other_uses_come_back_through_the_layer() -> None:
    """With a norm, without one, and of one of two parts alone: they are added, and none is lost."""
    norm = nn.GroupNorm(32, 64, eps=1e-6)
    parts = [maps_of_images(draw(16, 32, 6, 4, seed=seed)) for seed in (1, 2)]
    values = [part.values.requires_grad_() for part in parts]
    for layer in (
        Layer("same", _convolution("same", 64, 32), norm=norm),
        Layer("point", _convolution("point", 64, 32)),
    ):
        output, (first, second) = layer(*parts)
        y_grad, first_grad = (
            maps_of_images(draw(16, 32, 6, 4, seed=seed)).values for seed in (3, 4)
        )
        alone = torch.autograd.grad(output.values, values, y_grad, retain_graph=True)
        both = torch.autograd.grad((output.values, first.values), values, (y_grad, first_grad))
        assert relative_error(both[0], alone[0] + first_grad) < 4e-3
        assert torch.equal(both[1], alone[1])
        assert torch.equal(second.values, values[1])
