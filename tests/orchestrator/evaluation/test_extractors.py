"""An extractor is what it says, and a metric is named after it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from orchestrator.errors import BadInputError
from orchestrator.evaluation.extractors import extractor_sha256, metric_name, open_extractor
from orchestrator.specs.measuring import ExtractorSpec

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)


class Means(nn.Module):
    """Two features: the mean of all values, and that of the first row."""

    def forward(self, x: Tensor) -> Tensor:
        """Take uint8 (n, 3, H, W)."""
        x = x.float()
        return torch.stack([x.mean(dim=(1, 2, 3)), x[:, :, 0].mean(dim=(1, 2))], dim=1)


@pytest.fixture
def file(tmp_path: Path) -> ExtractorSpec:
    """A user's TorchScript file."""
    path = tmp_path / "means.pt"
    torch.jit.save(torch.jit.script(Means()), str(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return ExtractorSpec(name="means", file=str(path), sha256=sha256)


def test_pixels_are_features_from_minus_1_to_1() -> None:
    """Published kernel distances on pixels are on that scale; on [0, 1] they are 9 times less."""
    found = open_extractor(ExtractorSpec(), CPU)(np.array([[[[0], [255]]]], np.uint8))
    np.testing.assert_allclose(found, [[-1.0, 1.0]])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_users_file_takes_rgb_bytes_at_the_images_own_size(file: ExtractorSpec) -> None:
    """Grey becomes three equal channels; nothing is scaled or resized on the way."""
    found = open_extractor(file, CPU)(IMAGES)
    expected = np.stack([IMAGES.mean(axis=(1, 2, 3)), IMAGES[:, 0].mean(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(BadInputError, match="transparency"):
        open_extractor(file, CPU)(np.zeros((1, 8, 8, 4), np.uint8))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_that_is_another_one_is_refused(file: ExtractorSpec, tmp_path: Path) -> None:
    """A distance by other weights, under the published name, is the worst of all numbers."""
    other = file.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(BadInputError, match="it is another file"):
        open_extractor(other, CPU)
    inception = file.model_copy(update={"name": "inception", "sha256": None})
    with pytest.raises(BadInputError, match="not f58cb9b6ec32"):
        open_extractor(inception, CPU)
    (tmp_path / "no.pt").write_bytes(b"x")
    sha256 = hashlib.sha256(b"x").hexdigest()
    text = ExtractorSpec(name="mine", file=str(tmp_path / "no.pt"), sha256=sha256)
    with pytest.raises(BadInputError, match="no TorchScript file"):
        open_extractor(text, CPU)
    with pytest.raises(BadInputError, match="No such file"):
        open_extractor(text.model_copy(update={"file": str(tmp_path / "gone.pt")}), CPU)


def test_efflite0_gives_features_of_its_packages_weights() -> None:
    """It works without a file from anywhere else."""
    extract = open_extractor(ExtractorSpec(name="efflite0"), CPU)
    found = extract(np.concatenate([IMAGES[:1], IMAGES[:1]]))
    assert found.shape == (2, 1280)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert found.std() > 0.1


def test_only_the_published_inception_gives_a_fid() -> None:
    """Anything else is a distance by another name, so that nobody compares the two."""
    inception = ExtractorSpec(name="inception", file="/x.pt")
    assert metric_name("frechet", inception) == "fid"
    assert metric_name("frechet", ExtractorSpec(name="efflite0")) == "fd-efflite0"
    assert metric_name("kernel", ExtractorSpec()) == "kid-pixels"
    names = {extractor_sha256(spec) for spec in (inception, ExtractorSpec())}
    assert len(names) == 2


def test_an_extractor_without_its_weights_is_refused_at_once() -> None:
    """At submit, not after the images were drawn."""
    for fields in (
        {"name": "dinov2"},
        {"name": "pixels", "file": "/x"},
        {"name": "m", "file": "/x"},
    ):
        with pytest.raises(ValidationError, match=r"extractor\.(file|sha256)"):
            ExtractorSpec(**fields)
