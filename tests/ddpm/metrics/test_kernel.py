"""The kernel distance agrees with torchmetrics, is unbiased, and does not depend on blocks."""

import numpy as np
import pytest
import torch

from ddpm.metrics import blocks, kernel
from ddpm.metrics.kernel import kernel_distance


def test_distance_agrees_with_torchmetrics() -> None:
    """It is the referee for the kernel's degree, scale and constant."""
    from torchmetrics.image.kid import poly_mmd

    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(150, 9)), rng.normal(0.2, 1.1, size=(150, 9))
    expected = poly_mmd(torch.from_numpy(one), torch.from_numpy(other), degree=3, gamma=None)
    found = kernel_distance(one.astype(np.float32), other.astype(np.float32))
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_distance_of_two_sets_of_one_kind_is_0_on_average() -> None:
    """That sets it apart from the Fréchet distance, which is biased at small numbers."""
    rng = np.random.default_rng(2)
    found = [
        kernel_distance(
            rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(30, 5)).astype(np.float32)
        )
        for _ in range(400)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4.0 * error
    assert min(found) < 0.0


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory must not depend on the number of images, and so the value not on the blocks."""
    rng = np.random.default_rng(3)
    one, other = (rng.normal(size=(n, 7)).astype(np.float32) for n in (101, 77))
    whole = kernel_distance(one, other)
    monkeypatch.setattr(kernel, "row_blocks", lambda n: blocks.row_blocks(n, 10))
    assert kernel_distance(one, other) == pytest.approx(whole, rel=1e-12)


def test_large_sets_are_compared_in_parts_that_use_every_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All pairs of 50,000 images would take hours; parts are unbiased, too."""
    rng = np.random.default_rng(4)
    one, other = (rng.normal(size=(n, 7)).astype(np.float32) for n in (100, 90))
    parts = [kernel_distance(one[part::3], other[part::3]) for part in range(3)]
    monkeypatch.setattr(kernel, "MAX_TOGETHER", 30)
    assert kernel_distance(one, other) == pytest.approx(np.mean(parts))
