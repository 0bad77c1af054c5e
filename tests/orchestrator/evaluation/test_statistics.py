"""Statistics of others are read if they are such, and those that are written are read again."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpm.metrics.frechet import frechet_between
from ddpm.metrics.scores import score_from_statistics
from orchestrator.errors import BadInputError
from orchestrator.evaluation.statistics import check_width, encode_statistics, read_statistics
from orchestrator.specs.evaluate import StatisticsSpec
from orchestrator.specs.measuring import ExtractorSpec

PIXELS = ExtractorSpec()
GOOD: dict[str, Any] = {"mu": np.zeros(3), "sigma": np.eye(3)}


def features(seed: int, num: int) -> NDArray[np.float32]:
    """Correlated features of three dimensions."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(num, 3)) @ rng.normal(size=(3, 3))).astype(np.float32)


def written(path: Path, body: bytes) -> StatisticsSpec:
    """Put a file where a job file names it."""
    path.write_bytes(body)
    return StatisticsSpec(file=str(path))


def npz(**arrays: Any) -> bytes:
    """Return arrays as a file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_what_is_written_gives_the_distance_that_its_images_give(tmp_path: Path) -> None:
    """So a data set's statistics may stand for it, here and in other tools."""
    reference, samples = features(1, 400), features(2, 300)
    body = encode_statistics(reference, PIXELS)
    assert body is not None
    found = read_statistics(written(tmp_path / "s.npz", body), PIXELS)
    score = score_from_statistics(samples, reference, found.mean, found.covariance)
    assert score.value == pytest.approx(frechet_between(samples, reference), rel=1e-9)
    assert score.floor < score.value
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        assert arrays["sigma"].dtype == arrays["mu"].dtype == np.float64


def test_files_of_others_say_no_extractor_and_are_taken(tmp_path: Path) -> None:
    """Published ones have `mu` and `sigma` alone, some of them in float32."""
    body = npz(mu=np.zeros(3, np.float32), sigma=np.eye(3, dtype=np.float32))
    found = read_statistics(written(tmp_path / "s.npz", body), PIXELS)
    assert found.mean.dtype == found.covariance.dtype == np.float64


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"mu": np.zeros(3)}, "lacks sigma; it has: mu"),
        ({**GOOD, "mu": np.zeros((3, 1))}, r"mu must be \(D,\)"),
        ({**GOOD, "sigma": np.eye(4)}, r"sigma \(D, D\)"),
        ({**GOOD, "mu": np.array([0.0, np.nan, 0.0])}, "not finite"),
        ({**GOOD, "sigma": -np.eye(3)}, "no covariance"),
        ({**GOOD, "sigma": np.triu(np.ones((3, 3)))}, "no covariance"),
        ({**GOOD, "mu": np.array(["a", "b", "c"])}, "real numbers"),
        ({**GOOD, "extractor": "efflite0", "extractor_sha256": "0" * 64}, "of extractor efflite0"),
    ],
)
def test_what_is_no_statistics_of_this_extractor_is_refused(
    tmp_path: Path, arrays: dict[str, Any], told: str
) -> None:
    """A distance from it would be a number like any other."""
    with pytest.raises(BadInputError, match=told) as error:
        read_statistics(written(tmp_path / "s.npz", npz(**arrays)), PIXELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("body", [b"", b"PK no archive", npz(mu=np.array([{}], object))])
def test_a_file_that_is_no_npz_of_numbers_is_refused(tmp_path: Path, body: bytes) -> None:
    """Pickled objects in it are not unpacked."""
    with pytest.raises(BadInputError, match="is no npz of numbers"):
        read_statistics(written(tmp_path / "s.npz", body), PIXELS)


def test_another_file_than_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    """A later attempt must not compare with what was put there since."""
    spec = written(tmp_path / "s.npz", npz(**GOOD))
    pinned = spec.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(BadInputError, match="it is another file"):
        read_statistics(pinned, PIXELS)
    with pytest.raises(BadInputError, match="No such file"):
        read_statistics(StatisticsSpec(file=str(tmp_path / "gone.npz")), PIXELS)


def test_statistics_of_another_number_of_features_are_refused(tmp_path: Path) -> None:
    """It is all that a file without an extractor's name can be held to."""
    spec = written(tmp_path / "s.npz", npz(**GOOD))
    with pytest.raises(BadInputError, match="of 3 features, the extractor gives 5"):
        check_width(read_statistics(spec, PIXELS), spec, np.zeros((2, 5), np.float32))


def test_nothing_is_written_where_it_would_be_mostly_bias() -> None:
    """No more images than features make a singular covariance."""
    assert encode_statistics(features(1, 3), PIXELS) is None
