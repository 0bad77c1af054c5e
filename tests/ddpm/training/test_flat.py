"""Parameters in one vector are the same parameters."""

import pytest
import torch
from torch import Tensor, nn

from ddpm.training.flat import FlatParameters


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU(), nn.Conv2d(5, 2, 1), nn.Flatten())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_gradients_and_memory_format_stay(memory_format: torch.memory_format) -> None:
    """The layers must compute with the very same numbers as before the move."""
    image = torch.ones(2, 3, 4, 4)
    plain = _model().to(memory_format=memory_format)  # type: ignore[call-overload]
    moved = _model().to(memory_format=memory_format)  # type: ignore[call-overload]
    flat = FlatParameters(moved, num_extra=2)
    plain(image).square().sum().backward()
    moved(image).square().sum().backward()
    for ours, theirs in zip(moved.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(_grad(ours), _grad(theirs))
        assert ours.stride() == theirs.stride()
    assert flat.extra.tolist() == [0.0, 0.0]
    expected = torch.stack([_grad(p).square().sum() for p in plain.parameters()]).sum()
    torch.testing.assert_close(flat.parameter_grads.square().sum(), expected)


def test_changing_the_vector_changes_the_model() -> None:
    """The optimizer sees the vector only."""
    model = _model()
    flat = FlatParameters(model)
    flat.values.fill_(2.0)
    assert all((parameter == 2.0).all() for parameter in model.parameters())


def test_vector_survives_the_way_through_named_tensors() -> None:
    """This is what a checkpoint does, whatever the memory formats of the two models."""
    laid_out = _model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    source = FlatParameters(laid_out)
    target_model = _model()
    target = FlatParameters(target_model)
    target.values.zero_()
    target.fill(target.values, source.contiguous_tensors(source.values))
    for ours, theirs in zip(target_model.parameters(), _model().parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
