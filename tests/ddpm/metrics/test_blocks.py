"""Features are read by blocks: the same numbers as from arrays, and little of them in memory."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpm.metrics import blocks, classes, frechet, kernel, neighbours, scores
from ddpm.metrics.blocks import MappedRows, Rows, chosen, normalised, squared_distances
from ddpm.metrics.classes import class_shares
from ddpm.metrics.neighbours import kth_distances, nearest_in

Float32 = NDArray[np.float32]


def made(seed: int, num: int, width: int = 12) -> Float32:
    """Features that are not of one length: (N, D)."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((num, width)) * rng.uniform(0.5, 2, (num, 1))).astype(np.float32)


def mapped(folder: Path, features: Float32) -> MappedRows:
    """Return features from a file."""
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, features)
    return MappedRows(path)


def everything(samples: Rows, real: Rows) -> dict[str, Any]:
    """Return all that an evaluation computes of two sets."""
    numbers = np.arange(len(real))
    train, held_out = chosen(real, numbers[numbers % 5 > 0]), chosen(real, numbers[::5])
    labels = np.arange(len(real)) % 3
    nearest = nearest_in(samples, train)
    return {
        "scores": scores.score_all(samples, train, k=3, seed=1),
        "nearest": (nearest.indices.tolist(), nearest.distances.tolist()),
        "gaps": kth_distances(train, 1).tolist(),
        "classes": class_shares(
            samples,
            (train, labels[numbers % 5 > 0]),
            (held_out, labels[::5]),
            num_classes=3,
            k=3,
        ),
    }


@pytest.mark.parametrize("small_bytes", [0, 1 << 26], ids=["views", "arrays"])
def test_files_and_views_give_the_bits_of_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    """Whether a set is too large to be copied must not show in its numbers."""
    samples, real = made(1, 130), made(2, 170)
    for module in (blocks, classes, frechet, kernel, neighbours):
        monkeypatch.setattr(module, "row_blocks", partial(blocks.row_blocks, size=32))
    monkeypatch.setattr(kernel, "MAX_TOGETHER", 60)
    monkeypatch.setattr(blocks, "_SMALL_BYTES", 1 << 26)
    expected = everything(samples, real)
    monkeypatch.setattr(blocks, "_SMALL_BYTES", small_bytes)
    assert everything(mapped(tmp_path, samples), mapped(tmp_path, real)) == expected


def test_normalised_rows_are_computed_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy of each set was 400 MB of 50,000 x 2,048; a length of nothing stays nothing."""
    features = np.concatenate([made(3, 9), np.zeros((1, 12), np.float32)])
    expected = np.asarray(normalised(features)[:])
    monkeypatch.setattr(blocks, "_SMALL_BYTES", 0)
    view = normalised(features)
    assert not isinstance(view, np.ndarray)
    np.testing.assert_array_equal(view[4:10], expected[4:10])
    np.testing.assert_array_equal(view[np.array([9, 2])], expected[[9, 2]])
    np.testing.assert_allclose(np.linalg.norm(expected[:9], axis=1), 1.0, rtol=1e-6)
    assert not expected[9].any()


def test_squared_distances_are_those_of_each_pair() -> None:
    """Against the differences themselves, in float64."""
    one, other = made(4, 7), made(5, 6)
    differences = one[:, None].astype(np.float64) - other[None].astype(np.float64)
    found = squared_distances(one, other)
    np.testing.assert_allclose(found, (differences**2).sum(axis=2), rtol=1e-12)


_READS_ALL = """
import sys
from pathlib import Path
from ddpm.metrics.blocks import MappedRows, row_blocks
from tests.support.memory import peak_mb
features = MappedRows(Path(sys.argv[1]))
before = peak_mb()
total = sum(float(features[rows].sum()) for rows in row_blocks(len(features)))
print(peak_mb() - before)
"""


def test_what_was_read_of_a_file_does_not_stay(tmp_path: Path) -> None:
    """256 MB, read by blocks of 4 MB; a plain memory map kept all of them."""
    path = tmp_path / "large.npy"
    np.save(path, np.ones((131_072, 512), np.float32))
    done = subprocess.run(
        [sys.executable, "-c", _READS_ALL, str(path)], check=True, capture_output=True, text=True
    )
    assert 0 < float(done.stdout) < 64
