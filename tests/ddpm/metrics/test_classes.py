"""Samples are counted by the class that their nearest real images vote for."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpm.metrics import blocks, classes
from ddpm.metrics.blocks import normalised
from ddpm.metrics.classes import class_shares


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Real digits in [-1, 1] and what they are."""
    from sklearn.datasets import load_digits

    images, numbers = load_digits(return_X_y=True)
    return (images / 8.0 - 1.0).astype(np.float32), numbers.astype(np.int64)


def test_shares_agree_with_another_classifier_of_neighbours(
    digits: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    """Its votes on digits that it did not see are those of scikit-learn, but for drawn votes."""
    from sklearn.neighbors import KNeighborsClassifier

    images, numbers = digits
    train, held_out = (images[:1000], numbers[:1000]), (images[1000:], numbers[1000:])
    found = class_shares(images[1000:], train, held_out, num_classes=10, k=5)
    referee = KNeighborsClassifier(5).fit(normalised(train[0]), train[1])
    expected = referee.predict(normalised(held_out[0]))
    shares = np.bincount(expected, minlength=10) / len(expected)
    np.testing.assert_allclose(found.shares, shares, atol=0.006)
    assert found.accuracy is not None
    assert found.accuracy == pytest.approx(float((expected == held_out[1]).mean()), abs=0.006)
    assert found.accuracy > 0.94
    assert found.num_held_out == 797
    assert sum(found.shares) == pytest.approx(1.0)
    assert found.real_shares[3] == pytest.approx(float((train[1] == 3).mean()))


def test_a_class_that_is_not_drawn_has_no_share(
    digits: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    """What a model has forgotten must show, though quality and the other classes are perfect."""
    images, numbers = digits
    nothing = (images[:0], numbers[:0])
    found = class_shares(images[numbers != 7], (images, numbers), nothing, num_classes=11, k=1)
    assert (found.shares[7], found.shares[10]) == (0.0, 0.0)
    assert min(found.shares[:7]) > 0.05
    assert found.accuracy is None


def test_shares_do_not_depend_on_blocks(
    digits: tuple[NDArray[np.float32], NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by blocks, and results are not theirs."""
    images, numbers = digits
    train, held_out = (images[:900], numbers[:900]), (images[900:950], numbers[900:950])
    whole = class_shares(images[900:], train, held_out, num_classes=10, k=5)
    monkeypatch.setattr(classes, "row_blocks", lambda num: blocks.row_blocks(num, 77))
    assert class_shares(images[900:], train, held_out, num_classes=10, k=5) == whole
