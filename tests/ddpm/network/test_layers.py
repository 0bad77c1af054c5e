"""The fast forms of group norm and attention are the formulas, forwards and backwards."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.network.layers import _to_channels, attention, group_norm, group_norm_silu


def _norm_and_input(
    memory_format: torch.memory_format, offset: float = 0.0
) -> tuple[nn.GroupNorm, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(4, 12, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(12, generator=generator))
        norm.bias.copy_(torch.randn(12, generator=generator))
    x, grad = (torch.randn(3, 12, 4, 6, generator=generator) for _ in range(2))
    x = (x + offset).contiguous(memory_format=memory_format)
    return norm, x.requires_grad_(), grad


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_group_norm_silu_is_that_of_torch_in_float64(
    memory_format: torch.memory_format, offset: float
) -> None:
    """Values and all three gradients; a large mean must not eat the variance."""
    norm, x, grad = _norm_and_input(memory_format, offset)
    y = group_norm_silu(x, norm)
    ours = torch.autograd.grad(y, (x, norm.weight, norm.bias), grad)
    exact, x64 = nn.GroupNorm(4, 12, eps=1e-6).double(), x.detach().double().requires_grad_()
    exact.load_state_dict(norm.state_dict())
    expected = F.silu(exact(x64))
    gradients = torch.autograd.grad(expected, (x64, exact.weight, exact.bias), grad.double())
    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5 * (1 + offset)}
    torch.testing.assert_close(y.double(), expected, **tolerance)
    for gradient, of_exact in zip(ours, gradients, strict=True):
        torch.testing.assert_close(gradient.double(), of_exact, **tolerance)
    assert y.is_contiguous(memory_format=memory_format) or memory_format != torch.channels_last


def test_images_normalised_a_few_at_a_time_are_those_of_torch_in_float64() -> None:
    """Batches too large for the cache are taken in parts, here image by image."""
    generator = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(4, 64, eps=1e-6)
    x, grad = (
        torch.randn(5, 64, 128, 112, generator=generator).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    x = (x * torch.arange(1.0, 6.0).view(5, 1, 1, 1)).requires_grad_()  # no two images alike
    y = group_norm_silu(x, norm)
    ours = torch.autograd.grad(y, (x, norm.weight, norm.bias), grad)
    exact, x64 = nn.GroupNorm(4, 64, eps=1e-6).double(), x.detach().double().requires_grad_()
    expected = F.silu(exact(x64))
    gradients = torch.autograd.grad(expected, (x64, exact.weight, exact.bias), grad.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)
    for gradient, of_exact in zip(ours, gradients, strict=True):
        torch.testing.assert_close(gradient.double(), of_exact, rtol=1e-4, atol=1e-3)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_group_norm_silu_rounds_bfloat16_once() -> None:
    """Its input and output are bfloat16, everything between is float32."""
    norm, x, grad = _norm_and_input(torch.channels_last)
    rounded = x.detach().bfloat16()
    y = group_norm_silu(rounded, norm)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, F.silu(norm(rounded.float())).bfloat16(), rtol=8e-3, atol=1e-3)
    rounded.requires_grad_()
    group_norm_silu(rounded, norm).backward(grad.bfloat16())
    assert rounded.grad is not None
    assert rounded.grad.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("activated", [True, False])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_form_for_compiled_networks_is_that_of_torch_in_float64(
    offset: float, activated: bool
) -> None:
    """Values and all three gradients of the form that is taken while a network is traced."""
    norm, x, grad = _norm_and_input(torch.channels_last, offset)
    ours = group_norm_silu if activated else group_norm
    y = torch.compile(ours, backend="eager", fullgraph=True)(x, norm)
    gradients = torch.autograd.grad(y, (x, norm.weight, norm.bias), grad)
    exact, x64 = nn.GroupNorm(4, 12, eps=1e-6).double(), x.detach().double().requires_grad_()
    exact.load_state_dict(norm.state_dict())
    expected = F.silu(exact(x64)) if activated else exact(x64)
    of_exact = torch.autograd.grad(expected, (x64, exact.weight, exact.bias), grad.double())
    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5 * (1 + offset)}
    torch.testing.assert_close(y.double(), expected, **tolerance)
    for gradient, exactly in zip(gradients, of_exact, strict=True):
        torch.testing.assert_close(gradient.double(), exactly, **tolerance)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_groups_are_handed_to_their_channels_in_order() -> None:
    """Exactly, though it is a matrix product on a CPU."""
    groups = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_to_channels(groups, 5), groups.repeat_interleave(5, dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 3.0, 10.0])
def test_form_for_compiled_networks_is_exact_under_autocast(offset: float) -> None:
    """Statistics in bfloat16 would lose the variance of channels whose mean is not near 0."""
    norm, x, grad = _norm_and_input(torch.channels_last, offset)
    compiled = torch.compile(group_norm_silu, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = compiled(x, norm)
    gradients = torch.autograd.grad(y, (x, norm.weight, norm.bias), grad)
    expected = F.silu(norm(x))
    of_exact = torch.autograd.grad(expected, (x, norm.weight, norm.bias), grad)
    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4 * (1 + offset)}
    torch.testing.assert_close(y, expected, **tolerance)
    for gradient, exactly in zip(gradients, of_exact, strict=True):
        torch.testing.assert_close(gradient, exactly, **tolerance)


def test_attention_is_the_same_with_and_without_gradients() -> None:
    """Training takes two matrix products where sampling takes torch's fused operator."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 16, 8, generator=generator) for _ in range(3))
    fused = attention(q, k, v)
    torch.testing.assert_close(attention(q.requires_grad_(), k, v), fused)
