"""Folders with pictures and archives: the logo is left out, and what is unclear is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.artifacts.datasets.label_choice import find_labels
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.sources import open_source
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import DatasetError
from orchestrator.store.s3_store import open_bucket
from tests.support.tars import write_tar

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
PNGS = [encode_png(image) for image in IMAGES]
LOGO = encode_png(np.zeros((8, 8, 3), np.uint8))


def _opened(folder: Path) -> Source:
    return open_source(str(folder), folder.parent, open_bucket)


def _put_set(folder: Path, suffix: str) -> None:
    """Write the images as one file of a kind."""
    path = folder / f"part-0{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"image": PNGS}), path)
    elif suffix == ".npz":
        np.savez(path, images=IMAGES)
    else:
        write_tar(path, {f"{number:03d}.png": png for number, png in enumerate(PNGS)})


@pytest.mark.parametrize("suffix", [".tar", ".parquet", ".npz"])
def test_a_logo_beside_a_set_is_left_out_and_named(tmp_path: Path, suffix: str) -> None:
    """It was taken as the set: one image, and 40 left out."""
    (tmp_path / "set").mkdir()
    _put_set(tmp_path / "set", suffix)
    (tmp_path / "set" / "logo.png").write_bytes(LOGO)
    (tmp_path / "set" / "README.md").write_text("mine")
    source = _opened(tmp_path / "set")
    assert source.num_images == len(IMAGES)
    told = "2 left out: 1 no image (.md 1), 1 picture beside the set (logo.png)"
    assert source.survey.line(source.num_images) == f"40 images taken; {told}"


def test_many_pictures_are_the_set_and_the_archive_is_left_out(tmp_path: Path) -> None:
    """As somebody's copy of half of them."""
    write_tar(tmp_path / "old.tar", {"a.png": PNGS[0]})
    for number, png in enumerate(PNGS):
        (tmp_path / f"{number}.png").write_bytes(png)
    source = _opened(tmp_path)
    assert source.survey.line(source.num_images) == (
        "40 images taken; 1 left out: 1 no image (.tar 1)"
    )


@pytest.mark.parametrize("num_pictures", [1, 8])
def test_either_may_be_meant_and_both_are_named(tmp_path: Path, num_pictures: int) -> None:
    """Nobody should train on the wrong one of two."""
    for number in range(num_pictures):
        (tmp_path / f"{number}.png").write_bytes(PNGS[number])
    write_tar(tmp_path / "a.tar", {f"{n}.png": png for n, png in enumerate(PNGS[:num_pictures])})
    with pytest.raises(DatasetError, match=r"\(0\.png.*beside 1 file .*\(a\.tar\); put what"):
        _opened(tmp_path)


def test_members_that_may_hold_labels_are_named(tmp_path: Path) -> None:
    """What a `.json` of a WebDataset holds is for its writer to know."""
    write_tar(tmp_path / "a.tar", {"0.png": PNGS[0], "0.json": b'{"label": 3}'})
    with pytest.raises(DatasetError, match=r"members as 0\.json are not read.*\.cls.*\{file: "):
        find_labels(_opened(tmp_path), "auto", open_bucket)
