"""The Fréchet distance agrees with its closed form and with two referees, merged or whole."""

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray

from ddpm.metrics.frechet import FeatureMoments, frechet_between, frechet_distance


def features(seed: int, num: int, width: int) -> NDArray[np.float32]:
    """Correlated features of a scale and an offset of their own."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(num, width)) @ rng.normal(size=(width, width))
    return (mixed + rng.normal(size=width)).astype(np.float32)


def test_distance_of_two_gaussians_is_the_closed_form() -> None:
    """With commuting covariances it is a sum over dimensions: (a - b)^2 + (sqrt c - sqrt d)^2."""
    mean1, mean2 = np.array([1.0, 2.0]), np.array([0.0, 4.0])
    found = frechet_distance(mean1, np.diag([4.0, 9.0]), mean2, np.diag([1.0, 16.0]))
    assert found == pytest.approx(1.0 + 4.0 + (2.0 - 1.0) ** 2 + (3.0 - 4.0) ** 2, rel=1e-12)


def test_distance_agrees_with_scipys_root_and_with_torchmetrics() -> None:
    """Published figures come from a general matrix root; the symmetric one must equal it."""
    from torchmetrics.image.fid import _compute_fid

    one, other = features(1, 400, 12), features(2, 300, 12)
    moments = [FeatureMoments.of(x) for x in (one, other)]
    (mean1, cov1), (mean2, cov2) = [(m.mean, m.covariance) for m in moments]
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = ((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2.0 * root)
    assert frechet_between(one, other) == pytest.approx(expected, rel=1e-9)
    arrays = [torch.from_numpy(array) for array in (mean1, cov1, mean2, cov2)]
    assert frechet_between(one, other) == pytest.approx(_compute_fid(*arrays).item(), rel=1e-6)


def test_moments_merged_from_shards_are_those_of_the_whole() -> None:
    """A fleet's shards come in parts of any size."""
    whole = features(3, 5000, 6) + 100.0  # far from 0: naive sums of squares would lose digits
    merged = FeatureMoments.of(whole[:7])
    for start, stop in ((7, 1000), (1000, 1001), (1001, 5000)):
        merged = merged.merged(FeatureMoments.of(whole[start:stop]))
    assert merged.count == 5000
    np.testing.assert_allclose(merged.mean, whole.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(whole.astype(np.float64).T), rtol=1e-9)


def test_a_set_has_no_distance_to_itself_even_with_a_singular_covariance() -> None:
    """Fewer images than features leave zeros among the eigenvalues, which must not become NaN."""
    few = features(4, 5, 12)
    assert frechet_between(few, few) == pytest.approx(0.0, abs=1e-5)
