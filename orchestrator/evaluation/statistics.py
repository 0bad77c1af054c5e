"""Mean and covariance of real images' features, in the file that FID tools exchange.

An npz with `mu`, (D,), and `sigma`, (D, D). Those written here also say of which extractor they
are; those of others seldom do, and then the number of features is all that can be checked.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm.metrics.blocks import Rows
from ddpm.metrics.frechet import FeatureMoments
from orchestrator.errors import BadInputError
from orchestrator.evaluation.extractors import extractor_sha256
from orchestrator.evaluation.npz import read_npz
from orchestrator.specs.evaluate import StatisticsSpec
from orchestrator.specs.measuring import ExtractorSpec

MAX_WRITTEN_WIDTH = 2048  # features; the covariance of more is too large to keep beside a result
_MAX_ASYMMETRY = 1e-3  # of the largest variance; published files have been through float32

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """What a file says.

    Attributes:
        mean: (D,) float64.
        covariance: (D, D) float64.
        sha256: Hash of the file.
    """

    mean: Float64
    covariance: Float64
    sha256: str


def read_statistics(spec: StatisticsSpec, extractor: ExtractorSpec) -> Statistics:
    """Read and check a file of statistics.

    Raises:
        BadInputError: It cannot be read, is not what it says, or is of another extractor.
    """
    field = "statistics.file"
    path = Path(spec.file)
    try:
        body = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{field}: {path}: {error.strerror}; it must be there where the driver runs"
        ) from error
    sha256 = hashlib.sha256(body).hexdigest()
    if spec.sha256 is not None and sha256 != spec.sha256:
        raise BadInputError(
            f"{field}: {path} has the SHA-256 {sha256}, not {spec.sha256}; it is another file"
        )
    try:
        found = read_npz(body)
    except ValueError as error:
        raise BadInputError(f"{field}: {path} is no npz of numbers: {error}") from error
    _check_origin(path, found, extractor)
    return Statistics(*_checked(path, found), sha256)


def _check_origin(
    path: Path, arrays: dict[str, NDArray[np.generic]], extractor: ExtractorSpec
) -> None:
    own = extractor_sha256(extractor)
    if "extractor_sha256" in arrays and str(arrays["extractor_sha256"]) != own:
        other = str(arrays.get("extractor", "another"))
        raise BadInputError(
            f"statistics.file: {path} is of extractor {other} with other weights or another "
            f"preprocessing than {extractor.name} here; distances between two extractors mean "
            "nothing"
        )


def _checked(path: Path, arrays: dict[str, NDArray[np.generic]]) -> tuple[Float64, Float64]:
    """Return mean and covariance if they are such."""
    missing = [name for name in ("mu", "sigma") if name not in arrays]
    if missing:
        there = ", ".join(sorted(arrays)) or "nothing"
        raise BadInputError(f"statistics.file: {path} lacks {missing[0]}; it has: {there}")
    if any(arrays[name].dtype.kind not in "fiu" for name in ("mu", "sigma")):
        raise BadInputError(f"statistics.file: {path}: mu and sigma must be real numbers")
    mean, covariance = (arrays[name].astype(np.float64) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise BadInputError(
            f"statistics.file: {path}: mu must be (D,) and sigma (D, D), not {mean.shape} and "
            f"{covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise BadInputError(f"statistics.file: {path} has numbers that are not finite")
    variances = np.diag(covariance)
    largest = float(variances.max())
    is_symmetric = np.abs(covariance - covariance.T).max() <= _MAX_ASYMMETRY * max(largest, 0.0)
    if variances.min() < 0.0 or not is_symmetric:
        raise BadInputError(f"statistics.file: {path}: sigma is no covariance")
    return mean, covariance


def check_width(statistics: Statistics, spec: StatisticsSpec, features: Rows) -> None:
    """Raise BadInputError unless statistics are of as many features as an extractor gives."""
    if len(statistics.mean) != features.shape[1]:
        raise BadInputError(
            f"statistics.file: {spec.file} is of {len(statistics.mean)} features, the extractor "
            f"gives {features.shape[1]}: it was made with another extractor or preprocessing"
        )


def encode_statistics(features: Rows, extractor: ExtractorSpec) -> bytes | None:
    """Return the statistics of real images as an npz; None where they would say nothing.

    That is where there are no more images than features, or more features than are kept.
    """
    num_images, width = features.shape
    if num_images <= width or width > MAX_WRITTEN_WIDTH:
        return None
    moments, buffer = FeatureMoments.of(features), io.BytesIO()
    np.savez(
        buffer,
        mu=moments.mean,
        sigma=moments.covariance,
        num_images=np.array(num_images),
        extractor=np.array(extractor.name),
        extractor_sha256=np.array(extractor_sha256(extractor)),
    )
    return buffer.getvalue()
