"""A mask depends on its key and the element's place alone, and looks like chance."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from ddpm.compute import compile_obstacle
from ddpm.network.dropout import Dropout, set_dropout_keys

SHAPE = (8, 32, 16, 16)


def mask_of(numbers: tuple[int, ...], probability: float = 0.1, layer: int = 0) -> Tensor:
    """Return what a layer keeps (1.0) and drops (0.0) of a tensor in channels_last."""
    layers = [Dropout(probability) for _ in range(layer + 1)]
    set_dropout_keys(nn.ModuleList(layers), *numbers)
    x = torch.ones(SHAPE).contiguous(memory_format=torch.channels_last)
    kept: Tensor = layers[layer](x) > 0
    return kept.float()


def correlation(first: Tensor, second: Tensor) -> float:
    """Return the correlation of two masks."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_was_asked_for_is_dropped_and_the_rest_scaled(dtype: torch.dtype) -> None:
    """So that the mean stays; the gradient goes the same way."""
    layer = Dropout(0.25)
    set_dropout_keys(layer, 1, 2, 3)
    x = torch.ones(SHAPE, dtype=dtype, requires_grad=True)
    y = layer(x)
    assert set(y.unique().tolist()) == {0.0, float(torch.tensor(4 / 3, dtype=dtype))}
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_nothing_is_dropped_while_not_training_or_with_probability_0() -> None:
    """And nothing is copied."""
    x = torch.ones(SHAPE)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_masks_of_other_seeds_steps_and_layers_have_nothing_in_common() -> None:
    """Not even when one is shifted against the other."""
    keys = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)]
    masks = [mask_of(key) for key in keys] + [mask_of(keys[0], layer=1)]
    for first, second in itertools.combinations(masks, 2):
        assert abs(correlation(first, second)) < 0.02
        spectrum = (
            torch.fft.rfft(first.flatten() - 0.9) * torch.fft.rfft(second.flatten() - 0.9).conj()
        )
        shifted = torch.fft.irfft(spectrum) / (0.09 * first.numel())
        assert float(shifted.abs().max()) < 0.03
    assert torch.equal(mask_of(keys[0]), masks[0])


def test_a_worker_drops_what_one_worker_alone_would_drop_of_its_images() -> None:
    """So a loss does not depend on how many share the batch."""
    whole, part = Dropout(0.5), Dropout(0.5)
    set_dropout_keys(whole, 3, 9)
    set_dropout_keys(part, 3, 9, first_image=5)
    x = torch.randn(SHAPE)
    assert torch.equal(part(x[5:]), whole(x)[5:])


def test_neighbours_are_dropped_independently_and_all_places_alike() -> None:
    """Along channels, rows, columns and the batch."""
    mask = mask_of((7, 7, 7), probability=0.5)
    for dim in range(4):
        length = mask.shape[dim] - 1
        assert abs(correlation(mask.narrow(dim, 0, length), mask.narrow(dim, 1, length))) < 0.02
        others = [other for other in range(4) if other != dim]
        assert mask.mean(dim=others).sub(0.5).abs().max() < 0.035


def test_masks_neither_use_nor_change_torch_s_generator() -> None:
    """So other draws of the process change nothing."""
    before = torch.get_rng_state()
    first = mask_of((1, 2, 3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(mask_of((1, 2, 3)), first)


def test_the_memory_format_does_not_change_what_is_dropped() -> None:
    """It is a matter of speed."""
    layer = Dropout(0.5)
    x = torch.ones(SHAPE)
    assert torch.equal(layer(x), layer(x.contiguous(memory_format=torch.channels_last)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(compile_obstacle("cpu") is not None, reason="torch.compile does not work here")
def test_a_compiled_mask_is_the_eager_one() -> None:
    """What is compiled for speed must not train another network."""
    layer = Dropout(0.1)
    set_dropout_keys(layer, 2**40, 5, 1)
    x = torch.randn(SHAPE)
    compiled = torch.compile(layer, dynamic=False, options={"compile_threads": 1})
    assert torch.equal(compiled(x), layer(x))
