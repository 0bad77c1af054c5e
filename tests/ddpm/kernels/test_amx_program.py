"""A recorded program computes what its calls do, in memory that they share without harm."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.config import UNetConfig
from ddpm.kernels.amx.network import TiledUNet
from ddpm.kernels.amx.program import Program, _Life, _placed, call_function, empty
from ddpm.network.unet import UNet
from tests.support.amx import AMX_OBSTACLE
from tests.support.tiles import draw

LIVES = st.lists(
    st.builds(
        lambda num_bytes, first, length: _Life(num_bytes, first, first + length),
        st.integers(0, 1000),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    max_size=40,
)


@given(LIVES)
def test_what_is_there_at_once_lies_apart(lives: list[_Life]) -> None:
    """Bytes that two tensors shared would be those of the later one."""
    offsets, num_bytes = _placed(lives)
    placed = list(zip(offsets, lives, strict=True))
    for index, (offset, life) in enumerate(placed):
        assert offset + life.num_bytes <= num_bytes
        for other_offset, other in placed[:index]:
            is_beside = life.first <= other.last and other.first <= life.last
            is_apart = (
                offset + life.num_bytes <= other_offset or other_offset + other.num_bytes <= offset
            )
            assert is_apart or not is_beside


def test_memory_is_used_again_by_what_comes_later() -> None:
    """Or a program would hold all maps of a network at once."""
    in_turn = [_Life(1000, step, step + 1) for step in range(50)]
    assert _placed(in_turn)[1] < 2200


def test_program_reads_what_is_new_and_keeps_what_is_read_later() -> None:
    """A value of the first call is read by the last; between them its neighbours come and go."""
    given_values = torch.zeros(8)

    def function() -> torch.Tensor:
        first = empty((8,), torch.float32)
        call_function(lambda: first.copy_(given_values).add_(1.0), ())
        previous = first
        for _ in range(5):
            following = empty((8,), torch.float32)
            call_function(_doubles(previous, following), (previous,))
            previous = following
        output = empty((8,), torch.float32)
        call_function(lambda: torch.add(first, previous, out=output), (first, previous))
        return output

    program = Program(function)
    for value in (0.0, 3.0):
        given_values.fill_(value)
        program.run()
        assert torch.equal(program.output, torch.full((8,), 33.0 * (value + 1.0)))


def test_other_memory_the_second_time_is_refused() -> None:
    """Its tensors would lie in each other's places."""
    sizes = iter((8, 4))
    with pytest.raises(RuntimeError, match="other memory"):
        Program(lambda: empty((next(sizes),), torch.float32))
    asked = iter((2, 1))
    with pytest.raises(RuntimeError, match="other memory"):
        Program(lambda: torch.cat([empty((8,), torch.float32) for _ in range(next(asked))]))


def _doubles(source: torch.Tensor, target: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.mul(source, 2.0, out=target)


@pytest.mark.skipif(AMX_OBSTACLE is not None, reason=f"no AMX kernels: {AMX_OBSTACLE}")
@torch.no_grad()
def test_replayed_network_predicts_what_the_called_one_does() -> None:
    """For other images, timesteps and batches than it was recorded with; 2x2 maps among them."""
    config = UNetConfig(
        channels=32, channel_multipliers=(1, 1, 2), num_res_blocks=1, attention_resolutions=(2, 4)
    )
    model = UNet(config, (3, 8, 8)).eval()
    for index, parameter in enumerate(model.parameters()):
        if not parameter.any():
            parameter.copy_(draw(*parameter.shape, seed=index) / 20)
    model.bfloat16()
    called, replayed = TiledUNet(model), TiledUNet(model, frozen=True)
    earlier = []
    for seed, batch_size in enumerate((32, 32, 16, 40, 32)):
        x, t = draw(batch_size, 3, 8, 8, seed=seed), torch.arange(batch_size) * (seed + 1)
        earlier.append((replayed(x, t), called(x, t)))
    for found, expected in earlier:
        assert torch.equal(found, expected)
