"""Every metric stands beside its spread and beside what real images get."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpm.metrics.scores import score_all


def clouds(seed: int, num: int, shift: float = 0.0) -> NDArray[np.float32]:
    """Images of five classes, as it were."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(5, 6)) * 3.0
    return (centres[rng.integers(0, 5, num)] + rng.normal(shift, 1.0, (num, 6))).astype(np.float32)


def test_a_perfect_model_is_at_every_floor() -> None:
    """Samples of the data's own law cannot be told from real images."""
    scores = score_all(clouds(1, 400), clouds(2, 1000))
    assert set(scores) == {"frechet", "kernel", "precision", "recall", "density", "coverage"}
    assert all(score.is_at_floor for score in scores.values()), scores
    assert {score.floor_images for score in scores.values()} == {400}
    assert {name for name, score in scores.items() if score.k == 5} == {
        *("precision", "recall", "density", "coverage")
    }


def test_a_bad_model_is_above_its_floor() -> None:
    """Else the floor would excuse anything."""
    scores = score_all(clouds(1, 400, shift=2.0), clouds(2, 1000))
    assert not any(scores[name].is_at_floor for name in ("frechet", "kernel", "precision"))


def test_too_few_images_have_no_frechet_distance() -> None:
    """Its covariance would be singular, and the number mostly bias."""
    assert "frechet" not in score_all(clouds(1, 6), clouds(2, 1000))
    assert "frechet" in score_all(clouds(1, 40), clouds(2, 1000))


def test_spread_is_the_standard_error_of_the_value() -> None:
    """It is what a reader compares the difference of two models with."""
    found = [
        score_all(clouds(10 + i, 200, shift=1.0), clouds(50 + i, 200))["kernel"] for i in range(16)
    ]
    truth = float(np.std([score.value for score in found], ddof=1))
    assert np.median([score.spread for score in found]) == pytest.approx(truth, rel=0.5)


def test_neighbours_are_compared_at_equal_numbers() -> None:
    """Fewer samples than real images could not cover these however good they were."""
    scores = score_all(clouds(1, 200), clouds(2, 1000))
    assert (scores["coverage"].num_samples, scores["coverage"].num_reference) == (200, 200)
    assert scores["kernel"].num_reference == 1000
