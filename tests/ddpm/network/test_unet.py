"""The U-Net has Ho's sizes, takes the images it should, and refuses the others in one line."""

import math

import pytest
import torch

from ddpm.config import ConfigError, UNetConfig
from ddpm.network.blocks import Downsample, SelfAttention, repeated, repeated_view
from ddpm.network.unet import UNet, timestep_embedding
from ddpm.settings.network import num_groups

TINY = UNetConfig(channels=16, channel_multipliers=(1, 2), num_res_blocks=1, dropout=0.0)


def test_default_config_has_the_parameters_of_ho_et_al() -> None:
    """35.7 M is the published size; any slip in a block, a skip or a bias changes the count."""
    model = UNet(UNetConfig(), (3, 32, 32))
    assert sum(parameter.numel() for parameter in model.parameters()) == 35_746_307


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (6, 10), (2, 4)])
def test_output_has_the_shape_of_the_input(channels: int, size: tuple[int, int]) -> None:
    """Any size that the levels divide is promised, square or not, grey to RGBA."""
    model = UNet(TINY, (channels, *size))
    x_t = torch.ones(3, channels, *size)
    output = model(x_t, torch.tensor([0, 7, 999]))
    assert output.shape == x_t.shape
    assert output.dtype == torch.float32


@pytest.mark.parametrize("size", [(7, 8), (8, 9), (0, 2)])
def test_size_that_the_levels_do_not_divide_is_a_config_error(size: tuple[int, int]) -> None:
    """Otherwise the skip connections fail to fit deep inside, with a message about tensors."""
    with pytest.raises(ConfigError, match=r"image size must be .*channel_multipliers"):
        UNet(TINY, (1, *size))


@pytest.mark.parametrize("channels", [0, 65])
def test_other_numbers_of_image_channels_are_refused(channels: int) -> None:
    """So many channels are most likely an array in the wrong order."""
    with pytest.raises(ConfigError, match="image channels must be 1 to 64"):
        UNet(TINY, (channels, 8, 8))


def test_first_output_is_zero() -> None:
    """Ho starts the last convolutions at 0, so the loss starts at 1 for epsilon."""
    output = UNet(TINY, (1, 8, 8))(torch.ones(2, 1, 8, 8), torch.tensor([1, 2]))
    assert output.abs().max() == 0.0


def test_initial_weights_depend_on_the_seed_alone() -> None:
    """Workers build the same model apart from each other, and no global generator is touched."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = UNet(TINY, (1, 8, 8), seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = UNet(TINY, (1, 8, 8), seed=5), UNet(TINY, (1, 8, 8), seed=6)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


def test_weights_are_drawn_with_the_variance_of_fan_avg() -> None:
    """Ho's variance scaling: a uniform draw of variance 1 / fan_avg, for q, k and v apart."""
    attention = UNet(UNetConfig(), (3, 32, 32)).middle1.attention
    assert isinstance(attention, SelfAttention)
    channels = 256
    for part in attention.qkv.weight.chunk(3):
        assert part.var().item() == pytest.approx(1 / channels, rel=0.02)
        assert part.abs().max().item() <= math.sqrt(3 / channels)


def test_timestep_embedding_is_that_of_the_formula() -> None:
    """A wrong frequency still trains, only worse, so that nothing else would notice it."""
    embedding = timestep_embedding(torch.tensor([0, 3, 999]), 8)
    for row, t in zip(embedding.tolist(), [0, 3, 999], strict=True):
        angles = [t * 10_000 ** (-i / 3) for i in range(4)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert row == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (48, 24), (16, 16), (2, 2), (74, 2)])
def test_groups_are_32_or_the_largest_divisor(channels: int, groups: int) -> None:
    """Small models must not fail only because 32 does not divide their width."""
    assert num_groups(channels) == groups


def test_downsampling_looks_right_and_below() -> None:
    """Ho's strided convolution pads one row below and one column on the right only."""
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.copy_(torch.arange(9.0).reshape(1, 1, 3, 3))
        assert layer.conv.bias is not None
        layer.conv.bias.zero_()
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 3, 3] = 1.0
    assert layer(image)[0, 0].tolist() == [[0.0, 0.0], [0.0, 4.0]]


def test_attention_is_softmax_over_all_pixels() -> None:
    """Checked in float64 against the formula, with two heads."""
    torch.manual_seed(0)
    layer = SelfAttention(8, num_heads=2, norm_eps=1e-6).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    pixels = layer.norm(x).reshape(2, 8, 12).mT
    q, k, v = (pixels @ w.mT + b for w, b in zip(*_qkv_parts(layer), strict=True))
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = q[..., head] @ k[..., head].mT / math.sqrt(4)
        heads.append(scores.softmax(dim=-1) @ v[..., head])
    expected = x + layer.projection(torch.cat(heads, dim=-1)).mT.reshape(2, 8, 3, 4)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def _qkv_parts(layer: SelfAttention) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    return layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)


def test_pixels_repeated_by_a_view_are_those_of_interpolate() -> None:
    """GPUs take the view, whose gradient is deterministic without sorting."""
    x = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    doubled, expected = repeated_view(x), repeated(x)
    assert torch.equal(doubled, expected)
    assert doubled.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn(doubled.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.autograd.grad(doubled, x, grad), torch.autograd.grad(expected, x, grad)
    )


def test_memory_format_and_batch_do_not_change_the_output() -> None:
    """channels_last is only faster; and no image may see its neighbours in the batch."""
    model = _model_with_weights()
    x_t, t = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4)
    expected = model(x_t, t)
    torch.testing.assert_close(model(x_t[2:3], t[2:3]), expected[2:3], rtol=1e-4, atol=1e-5)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model(x_t, t), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_weights_stay_near_float32() -> None:
    """Sampling holds the weights in bfloat16; the timestep must not be rounded with them."""
    model = _model_with_weights()
    x_t, t = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4)
    expected = model(x_t, t + 990)
    output = model.to(torch.bfloat16)(x_t, t + 990)
    assert output.dtype == torch.float32
    assert ((output - expected).norm() / expected.norm()).item() < 0.03


def _model_with_weights() -> UNet:
    """A tiny model in eval mode none of whose weights is 0."""
    model = UNet(TINY, (3, 8, 8)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model.requires_grad_(False)
