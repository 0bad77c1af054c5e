"""The labels of a set go out with its images, in each form."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.artifacts.images import decode_png
from orchestrator.artifacts.samples.export import export_samples
from orchestrator.artifacts.samples.labels import NO_CLASS, LabelRule
from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.errors import BadInputError
from tests.support.fakes import MemoryStore
from tests.support.sample_sets import put_set

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), dtype=np.uint8)
CYCLE = LabelRule("cycle", (2, 0), class_names=("cat", "dog", "great owl"))


def store_of(rule: LabelRule | None) -> MemoryStore:
    """Return a store with a whole set in three shards."""
    store = MemoryStore()
    put_set(store, "set", PIXELS, 3, rule=rule)
    assert verify_samples(store, "set").is_whole
    return store


def folders(root: Path) -> dict[str, list[str]]:
    """Return the files of each folder below one."""
    return {f.name: sorted(one.name for one in f.iterdir()) for f in sorted(root.iterdir())}


def test_each_class_has_a_folder(tmp_path: Path) -> None:
    """As tools that read data sets expect them; names sort in index order, each image once."""
    root = tmp_path / "out"
    store = store_of(CYCLE)
    for overwrite in (False, True):
        export_samples(store, "set", "png-by-class", root, overwrite=overwrite)
    assert folders(root) == {
        "cat": ["000000001.png", "000000003.png", "000000005.png"],
        "great owl": [f"{k:09d}.png" for k in (0, 2, 4, 6)],
    }
    for path in root.rglob("*.png"):
        assert np.array_equal(decode_png(path.read_bytes()), PIXELS[int(path.stem)])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("a/b", "c", "d"), ["0", "2"]),
        (("..", "c", "d"), ["0", "2"]),
        (("A", "b", "a"), ["0", "2"]),
        (("no-class", "b", "a"), ["0", "2"]),
        (("été", "b", "ж 1"), ["été", "ж 1"]),
    ],
)
def test_names_that_can_be_no_folders_are_numbers(
    tmp_path: Path, names: tuple[str, ...], found: list[str]
) -> None:
    """A class name comes from somebody's data, and may be a way out of the folder."""
    rule = LabelRule("cycle", (2, 0), class_names=names)
    export_samples(store_of(rule), "set", "png-by-class", tmp_path / "out")
    assert sorted(folders(tmp_path / "out")) == found
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_images_of_no_class_have_a_folder_and_sets_without_labels_have_none(tmp_path: Path) -> None:
    """What was drawn without a label is no image of some class."""
    rule = LabelRule("cycle", (NO_CLASS,), class_names=("cat", "dog"))
    export_samples(store_of(rule), "set", "png-by-class", tmp_path / "out")
    assert list(folders(tmp_path / "out")) == ["no-class"]
    with pytest.raises(BadInputError, match="no labels to sort by: export it as png"):
        export_samples(store_of(None), "set", "png-by-class", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_arrays_and_tables_have_the_labels_beside_the_images(tmp_path: Path) -> None:
    """In index order, as integers."""
    store, expected = store_of(CYCLE), [2, 0, 2, 0, 2, 0, 2]
    export_samples(store, "set", "npz", tmp_path / "set.npz")
    export_samples(store, "set", "parquet", tmp_path / "set.parquet")
    with np.load(tmp_path / "set.npz", allow_pickle=False) as archive:
        assert archive["arr_1"].tolist() == expected
    assert pq.read_table(tmp_path / "set.parquet")["label"].to_pylist() == expected
