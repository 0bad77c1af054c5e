"""The convolution of small maps: torch's result, and gradients as exact as torch's."""

from collections.abc import Sequence
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.compute import compile_obstacle
from ddpm.network.convolution import Conv2d

# One step of bfloat16. Its rounding alone makes 1.7e-3; a processor without bfloat16 instructions
# also sums the gradient of x in bfloat16, which makes 4.2e-3.
_ABOUT_BFLOAT16 = 2.0**-7


def _convolution_and_input(shape: tuple[int, ...]) -> tuple[Conv2d, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    conv = Conv2d(shape[1], 24, 3, padding=1)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).bfloat16())
    x = torch.randn(shape, generator=generator).bfloat16()
    grad = torch.randn(shape[0], 24, *shape[2:], generator=generator).bfloat16()
    return conv, x.requires_grad_(), grad


def _exact_gradients(inputs: tuple[Tensor, ...], grad: Tensor) -> list[Tensor]:
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
    return _gradients(_convolved(exact), exact, grad.double())


def _convolved(inputs: Sequence[Tensor]) -> Tensor:
    x, weight, bias = inputs
    return F.conv2d(x, weight, bias, padding=1)


def _gradients(y: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> list[Tensor]:
    return [gradient.double() for gradient in torch.autograd.grad(y, inputs, grad)]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(5, 16, 8, 8), (1, 3, 4, 4), (3, 16, 2, 7), (2, 8, 16, 16)])
def test_gradients_are_as_exact_as_those_of_torch(
    shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    """Against float64; a map must see nothing of the one beside it."""
    conv, x, grad = _convolution_and_input(shape)
    conv.to(memory_format=memory_format)  # type: ignore[call-overload]
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()
    inputs = (x, *conv.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, of_torch = conv(x), _convolved(inputs)
    assert torch.equal(y, of_torch)
    all_exact = _exact_gradients(inputs, grad)
    ours, torchs = _gradients(y, inputs, grad), _gradients(of_torch, inputs, grad)
    for gradient, from_torch, expected in zip(ours, torchs, all_exact, strict=True):
        assert _error(gradient, expected) < max(1.5 * _error(from_torch, expected), 1e-6)
        assert _error(gradient, expected) < _ABOUT_BFLOAT16


def _error(gradient: Tensor, expected: Tensor) -> float:
    return float((gradient - expected).norm() / expected.norm())


def test_what_lays_maps_side_by_side_is_told_by_precision_and_shape() -> None:
    """Every worker of a job, and every attempt, must compute the same way."""
    conv, small, _ = _convolution_and_input((2, 16, 8, 8))
    large = _convolution_and_input((2, 16, 4, 32))[1]
    strided, pointwise = Conv2d(16, 24, 3, stride=2, padding=1), Conv2d(16, 24, 1)
    cases = [(conv, small), (conv, large), (strided, small), (pointwise, small)]
    for (layer, x), has_autocast in product(cases, [True, False]):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_autocast):
            y = layer(x if has_autocast else x.float())
        is_ours = "SameConvolution" in type(y.grad_fn).__name__
        assert is_ours == (layer is conv and x is small and has_autocast)


def test_nothing_is_kept_for_a_backward_pass_that_does_not_come() -> None:
    """Sampling takes torch's own convolution."""
    conv, x, _ = _convolution_and_input((2, 16, 8, 8))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(x).grad_fn is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(compile_obstacle("cpu") is not None, reason="torch.compile does not work here")
def test_gradients_are_the_same_when_compiled() -> None:
    """The compiler goes through the function's own backward pass.

    The gradient of x is torch's, and may be summed in another order: the compiler chooses layouts.
    """
    conv, x, grad = _convolution_and_input((4, 16, 8, 8))
    compiled = torch.compile(conv, dynamic=False, options={"compile_threads": 1})
    inputs = (x, *conv.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        eager = _gradients(conv(x), inputs, grad)
        through_compiler = _gradients(compiled(x), inputs, grad)
    for gradient, expected in zip(through_compiler[1:], eager[1:], strict=True):
        assert _error(gradient, expected) < 1e-3
    exact = _exact_gradients(inputs, grad)[0]
    assert _error(through_compiler[0], exact) < max(1.5 * _error(eager[0], exact), 1e-6)
