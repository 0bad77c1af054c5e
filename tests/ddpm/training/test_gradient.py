"""The gradient of a step, however its activations are kept."""

import pytest
import torch

from ddpm.compute import ComputeDecision, Workload, decide_compute
from tests.support.small_training import small_state, train


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_activations_that_are_computed_again_give_the_same_bits(precision: str) -> None:
    """Dropout included: its keys say what is dropped, in whatever pass."""
    compute = ComputeDecision(precision=precision)  # type: ignore[arg-type]
    states = [
        train(small_state(activation_checkpointing=asked, compute=compute), 4)
        for asked in (False, True)
    ]
    assert torch.equal(states[0].parameters.values, states[1].parameters.values)


def test_fewer_activations_are_kept_until_the_gradient() -> None:
    """Else the option would only cost time."""
    kept = []
    for asked in (False, True):
        state = small_state(activation_checkpointing=asked)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            state.model(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_what_is_computed_again_is_neither_compiled_nor_on_tiles() -> None:
    """The record says so; the job runs."""
    decided = decide_compute(
        Workload(
            images_per_pass=16,
            is_recomputed=True,
            compile_hindrance="stages are computed one by one",
        ),
        precision="bf16",
        compile_request=True,
        num_threads=1,
        worth_compiling=True,
        device_kind="cpu",
    )
    assert not decided.compiled
    assert decided.kernels == "torch"
    assert "eager, since stages are computed one by one" in decided.reason
