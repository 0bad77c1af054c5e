"""Precision, recall, density and coverage agree with their referee; copies are found."""

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from ddpm.metrics import blocks, neighbours
from ddpm.metrics.blocks import normalised
from ddpm.metrics.neighbours import (
    authentic_share,
    copying_score,
    kth_distances,
    nearest_in,
    neighbourhoods,
)


def column(*values: float) -> NDArray[np.float32]:
    """Features of one dimension."""
    return np.array(values, np.float32)[:, None]


def test_shares_agree_with_the_prdc_package(capsys: pytest.CaptureFixture[str]) -> None:
    """It leaves the surface of a ball out; where no distances are equal the two must agree."""
    from prdc import compute_prdc

    rng = np.random.default_rng(1)
    real = rng.normal(size=(300, 4)).astype(np.float32)
    drawn = rng.normal(0.5, 0.8, size=(200, 4)).astype(np.float32)
    expected = compute_prdc(real_features=real, fake_features=drawn, nearest_k=5)
    found = neighbourhoods(drawn, real, 5)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-9), name


def test_shares_of_four_points_on_a_line_are_what_one_counts_by_hand() -> None:
    """The surface belongs to the ball, and an image is not its own neighbour."""
    real, drawn = column(0.0, 1.0, 3.0), column(2.0, 9.0)
    found = neighbourhoods(drawn, real, 1)
    assert found.precision == 0.5  # 2 lies on the surface of 1's ball and in that of 3
    assert found.density == (1 + 1) / (1 * 2)
    assert found.coverage == pytest.approx(2 / 3)
    assert found.recall == 1.0  # both samples' balls reach 7 far; 9's holds 2..16, 2's -5..9


def test_blocks_change_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does the diagonal of a block hide a neighbour, nor a seam between blocks."""
    rng = np.random.default_rng(2)
    real, drawn = (rng.normal(size=(n, 3)).astype(np.float32) for n in (57, 43))
    whole, nearest = neighbourhoods(drawn, real, 3), nearest_in(drawn, real)
    monkeypatch.setattr(neighbours, "row_blocks", lambda n: blocks.row_blocks(n, 8))
    assert neighbourhoods(drawn, real, 3) == whole
    np.testing.assert_array_equal(nearest_in(drawn, real).indices, nearest.indices)


def test_normalised_features_have_one_length_and_the_same_direction() -> None:
    """Only then are precision and density not fooled by lengths; a black image stays black."""
    found = normalised(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    assert np.abs(found - np.array([[0.6, 0.8], [0.0, 0.0]])).max() < 2e-7


def test_copies_are_not_authentic_and_strangers_are() -> None:
    """A model that repeats its training images must not look good."""
    rng = np.random.default_rng(4)
    train = rng.normal(size=(200, 8)).astype(np.float32)
    gaps = kth_distances(train, 1)
    copies = train[:50] + np.float32(1e-3)
    assert authentic_share(nearest_in(copies, train), gaps) == 0.0
    assert authentic_share(nearest_in(copies + 100.0, train), gaps) == 1.0


def test_copying_score_is_the_mann_whitney_statistic() -> None:
    """Ties count half, as in scipy's; copies are far below 0."""
    rng = np.random.default_rng(5)
    sample, heldout = rng.normal(size=120).round(1), rng.normal(size=80).round(1)
    u = scipy.stats.mannwhitneyu(sample, heldout).statistic
    expected = (u - 120 * 80 / 2) / np.sqrt(120 * 80 * 201 / 12)
    assert copying_score(sample, heldout) == pytest.approx(expected)
    assert copying_score(np.zeros(120), heldout + 9.0) < -10.0
