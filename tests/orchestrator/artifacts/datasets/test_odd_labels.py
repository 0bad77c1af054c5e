"""Labels as they lie about: none is guessed, crossed or taken for another image's."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.labels import read_labels
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import DatasetError
from tests.support.fakes import MemoryStore
from tests.support.tars import write_tar

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
Labelled = list[
    tuple[int, str]
]  # first byte of an image, which tells it from all others, and class


def _labelled(source: Path, tmp_path: Path, labels: str = "auto") -> Labelled:
    """Take a source in; return which image has which class."""
    store = MemoryStore()
    ref = ingest(str(source), store, tmp_path / "cache", labels=labels)
    images = _images(store, ref.images)
    values = read_labels(store, ref).values
    return [
        (int(image.ravel()[0]), ref.class_names[v]) for image, v in zip(images, values, strict=True)
    ]


def _images(store: MemoryStore, sha256: str) -> np.ndarray:
    manifest = json.loads(store.get(f"datasets/{sha256}/manifest.json").body)
    bodies = [store.get(chunk["key"]).body for chunk in manifest["chunks"]]
    return np.concatenate([np.load(io.BytesIO(body)) for body in bodies])


def _first(index: int) -> int:
    return int(IMAGES[index].ravel()[0])


def _folder(tmp_path: Path, names: Sequence[str] = ("a.png", "b.png")) -> Path:
    for index, name in enumerate(names):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(IMAGES[index]))
    return tmp_path / "set"


@pytest.mark.parametrize(
    "text",
    [
        "a.png,cat\nb.png,dog\n",
        "filename,label\na.png,cat\nb.png,dog\n",
        '\ufeff"a.png","cat"\r\n"b.png","dog"\r\n',
        "a.png;cat\nb.png;dog\n",
        "a.png\tcat\nb.png\tdog\n",
        " ./a.png , cat \n\n b , dog \n",
        "a.png cat\nb.png dog\n",
        "a.png,cat\rb.png,dog\r",
        "label,filename\ncat,a.png\ndog,b.png\n",
        ",name,label\n0,a.png,cat\n1,b.png,dog\n",
        "filename,width,height,class\na.png,8,8,cat\nb.png,8,8,dog\n",
        "a.png,cat,\nb.png,dog,\n",
        ".\\a.png,cat\n.\\b.png,dog\n",
        "cat\ndog\n",
        "Label\ncat\ndog\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_csv_as_spreadsheets_write_it_gives_each_image_its_class(
    text: str, encoding: str, tmp_path: Path
) -> None:
    """A separator that was not known made the whole line a class."""
    (tmp_path / "l.csv").write_bytes(
        text.removeprefix("\ufeff" * (encoding == "utf-16")).encode(encoding)
    )
    found = _labelled(_folder(tmp_path), tmp_path, f"file:{tmp_path / 'l.csv'}")
    assert found == [(_first(0), "cat"), (_first(1), "dog")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.png,cat\na.png,dog\nb.png,dog\n", "row 2: a.png has the class dog, and cat above"),
        ("1\n2\n3\n", "has 3 rows for 2 images"),
        ("cat\ndog\nemu\n", "has 3 rows for 2 images"),
        ("", "has 0 rows for 2 images"),
        ("a.png,cat\n", "gives no class to b.png"),
        ("id,name,label\n1,a.png,cat\n2,b.png,dog\n", "which one is the class is not clear"),
        ("image,MEL,NV\na,1.0,0.0\nb,0.0,1.0\n", "which one is the class is not clear"),
        ("a.png,cat\nb.png\n", "row 2: expected name,label"),
        ("/data/a.png,cat\n/data/b.png,dog\n", "has /data/a.png, and they are called a.png"),
        ('{"a.png": 1, "b.png": 2}', "is JSON"),
        ("a.png,1\nb.png,nan\n", "gives no class to b.png"),
        ("a.png,-1\nb.png,0\n", "number the classes from 0"),
        ("a.png,99999999999\nb.png,0\n", "number the classes from 0"),
    ],
)
def test_csv_that_means_something_else_is_refused(text: str, told: str, tmp_path: Path) -> None:
    """The last of two classes of an image, or a label taken for a header, shifts all others."""
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DatasetError, match=told):
        _labelled(_folder(tmp_path), tmp_path, f"file:{tmp_path / 'l.csv'}")


def test_file_name_that_several_images_have_names_none(tmp_path: Path) -> None:
    """Both would get the class of one."""
    (tmp_path / "l.csv").write_text("a.png,cat\n")
    with pytest.raises(
        DatasetError, match=r"2 images are called so; name them by path, as x/a\.png"
    ):
        _labelled(_folder(tmp_path, ("x/a.png", "y/a.png")), tmp_path, f"file:{tmp_path / 'l.csv'}")


def test_class_is_of_its_own_shard_where_names_come_again(tmp_path: Path) -> None:
    """Every shard of some WebDatasets counts from 0: all images had the classes of the last one."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        write_tar(
            folder / f"{shard}.tar",
            {
                "0000.png": encode_png(IMAGES[2 * shard]),
                "0000.cls": b"cat" if shard else b"dog\n",
                "0001.view.png": encode_png(IMAGES[2 * shard + 1]),
                "0001.cls": b"emu" if shard else b"gnu",
            },
        )
    assert _labelled(folder, tmp_path) == [
        (_first(0), "dog"),
        (_first(2), "cat"),
        (_first(1), "gnu"),
        (_first(3), "emu"),
    ]


def _edm(tmp_path: Path, labels: Any) -> Path:
    path = tmp_path / "edm.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(2):
            archive.writestr(f"00000/img{index:08d}.png", encode_png(IMAGES[index]))
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def test_list_that_says_null_gives_no_labels_and_no_folders_instead(tmp_path: Path) -> None:
    """EDM writes it for a set without; its folder 00000 is no class."""
    path = _edm(tmp_path, None)
    ref = ingest(str(path), MemoryStore(), tmp_path / "c", labels="auto", needs_labels=False)
    assert ref.class_names == ()
    with pytest.raises(DatasetError, match="no labels that can be found"):
        _labelled(path, tmp_path)


@pytest.mark.parametrize("label", [0.5, [0, 1], None, "x"])
def test_label_of_a_list_that_is_no_whole_number_is_refused(label: Any, tmp_path: Path) -> None:
    """A half became class 0."""
    path = _edm(tmp_path, [["00000/img00000000.png", 0], ["00000/img00000001.png", label]])
    with pytest.raises(DatasetError, match=r"edm\.zip: dataset\.json"):
        _labelled(path, tmp_path)


@pytest.mark.parametrize("name", ["y", "labels", "targets"])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_whole_numbers_of_any_type_are_classes(name: str, dtype: str, tmp_path: Path) -> None:
    """Frameworks save labels as floats as readily as whole numbers."""
    values = np.array([0, 1, 1, 0, 1, 0])
    arrays: dict[str, Any] = {name: values.astype(dtype).reshape(-1, 1)}
    np.savez(tmp_path / "x.npz", images=IMAGES, **arrays)
    assert _labelled(tmp_path / "x.npz", tmp_path) == [
        (_first(index), str(value)) for index, value in enumerate(values)
    ]


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, -1.0])
def test_numbers_that_are_no_classes_are_refused(bad: float, tmp_path: Path) -> None:
    """They would be cut to some class."""
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=np.array([0, 1, 1, 0, 1, bad]))
    with pytest.raises(DatasetError, match="labels"):
        _labelled(tmp_path / "x.npz", tmp_path)


def test_parts_of_an_npz_are_not_mixed(tmp_path: Path) -> None:
    """MedMNIST has the parts of a set in one file; the training part has its own labels."""
    rest: dict[str, Any] = {
        f"{part}_{what}": IMAGES[:1] for part in ("val", "test") for what in ("images", "x")
    }
    labels = np.array([[0], [1], [2], [0], [1], [2]])
    np.savez(
        tmp_path / "x.npz", train_images=IMAGES, train_labels=labels, labels=labels[::-1], **rest
    )
    said: list[str] = []
    ref = ingest(
        str(tmp_path / "x.npz"), MemoryStore(), tmp_path / "c", labels="auto", say=said.append
    )
    assert ref.num_images == 6
    assert "5 left out: 5 array" in said[0]
    assert [label for _, label in _labelled(tmp_path / "x.npz", tmp_path)] == list("012012")


def test_folders_named_after_parts_are_no_classes(tmp_path: Path) -> None:
    """A model of the classes `train` and `test` is what nobody asked for."""
    source = _folder(tmp_path, ("train/cat/a.png", "train/dog/a.png", "test/cat/a.png"))
    with pytest.raises(DatasetError, match="test, train, which look like parts of a set"):
        _labelled(source, tmp_path)
    said: list[str] = []
    ingest(str(source), MemoryStore(), tmp_path / "c", say=said.append)
    assert "parts taken together as one set (test, train)" in said[0]


def test_class_whose_name_is_no_utf_8_has_a_number_and_a_name(tmp_path: Path) -> None:
    """Folders of old disks are named in Latin-1; sorting them ended in a stack of calls."""
    source = _folder(tmp_path, ("dog/a.png",))
    odd = os.path.join(os.fsencode(source), b"k\xe4tzchen")  # noqa: PTH118 - Path takes no bytes
    os.mkdir(odd)  # noqa: PTH102
    with open(os.path.join(odd, b"b.png"), "wb") as file:  # noqa: PTH118, PTH123
        file.write(encode_png(IMAGES[1]))
    assert _labelled(source, tmp_path) == [(_first(0), "dog"), (_first(1), "k\\xe4tzchen")]


def test_labels_of_idx_are_found_packed_or_not(tmp_path: Path) -> None:
    """Some unpack the images alone, some the labels."""
    import gzip

    images = b"\0\0\x08\x04" + np.array(IMAGES.shape, ">u4").tobytes() + IMAGES.tobytes()
    labels = b"\0\0\x08\x01" + np.array([6], ">u4").tobytes() + bytes([0, 1, 2, 2, 1, 0])
    path = tmp_path / "train-images-idx4-ubyte.gz"
    path.write_bytes(gzip.compress(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    assert [label for _, label in _labelled(path, tmp_path)] == list("012210")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array([0.0, 2.0, 0.0]), ["0", "2", "0"]),
        (pa.array([True, False, True]), ["1", "0", "1"]),
    ],
)
def test_label_column_of_any_type_is_read(
    labels: pa.Array, names: list[str], tmp_path: Path
) -> None:
    """Tables are written by many tools."""
    images = [{"bytes": encode_png(image), "path": None} for image in IMAGES[:3]]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "x.parquet")
    assert [label for _, label in _labelled(tmp_path / "x.parquet", tmp_path)] == names


def test_one_row_that_names_no_image_is_told_as_one(tmp_path: Path) -> None:
    """It read "1 row name no image"."""
    (tmp_path / "l.csv").write_text("b.png,dog\nc.png,cat\na.png,cat\n")
    folder, mode, said = _folder(tmp_path), f"file:{tmp_path / 'l.csv'}", list[str]()
    ingest(str(folder), MemoryStore(), tmp_path / "cache", labels=mode, say=said.append)
    assert said[-1] == f"1 row of {tmp_path / 'l.csv'} names no image: c.png"


def test_rows_that_name_no_image_are_counted_and_named(tmp_path: Path) -> None:
    """A list for a larger set, or with a slip in a name, is else taken without a word."""
    (tmp_path / "l.csv").write_text("filename,label\nb.png,dog\nc.png,cat\na.png,cat\nd,owl\n")
    said = list[str]()
    ref = ingest(
        str(_folder(tmp_path)),
        MemoryStore(),
        tmp_path / "cache",
        labels=f"file:{tmp_path / 'l.csv'}",
        say=said.append,
    )
    assert ref.class_names == ("cat", "dog")
    assert said[1:] == [
        "2 classes: cat 1, dog 1",
        f"2 rows of {tmp_path / 'l.csv'} name no image: c.png, d",
    ]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array(["cat", "dog", "cat", "cat", "dog", "cat"]), ("cat", "dog")),
        (np.array([b"cat", b"dog", b"cat", b"cat", b"dog", b"cat"]), ("cat", "dog")),
        (np.array([["cat"], ["dog"], ["cat"], ["cat"], ["dog"], ["cat"]]), ("cat", "dog")),
        (np.eye(2, dtype=np.float32)[[0, 1, 0, 0, 1, 0]], ("0", "1")),
        (np.eye(2, dtype=bool)[[0, 1, 0, 0, 1, 0]], ("0", "1")),
        (np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]), ("0", "1")),
        (np.array(["0", "1.0", "0", "0", "1", "0"]), ("0", "1")),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "file", "parquet"])
def test_labels_of_an_array_are_names_numbers_or_one_column_a_class(
    kind: str, values: np.ndarray, names: tuple[str, ...], tmp_path: Path
) -> None:
    """They are kept as a library wrote them: text, one-hot rows, floats."""
    labels, source = "auto", tmp_path / "x.npz"
    if kind == "npz":
        np.savez(source, images=IMAGES, labels=values)
    elif kind == "file":
        np.savez(source, images=IMAGES)
        np.save(tmp_path / "y.npy", values)
        labels = f"file:{tmp_path / 'y.npy'}"
    else:
        source = tmp_path / "x.parquet"
        pictures = pa.array([encode_png(image) for image in IMAGES])
        pq.write_table(pa.table({"image": pictures, "label": values.tolist()}), source)
    found = _labelled(source, tmp_path, labels)
    assert found == [(_first(k), names[c]) for k, c in enumerate([0, 1, 0, 0, 1, 0])]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.array([0, 1, 2, 3, 4, 0.5]), "no whole numbers: 0.5 for image 5"),
        (np.array([0, np.nan, 2, 3, 4, 5]), "no whole numbers: nan for image 1"),
        (np.array([0, 1, 2, 3, 4, 1e300]), "holds labels from 0 to "),
        (np.array([0, 1, 2, 3, 4, -1e300]), "number the classes from 0"),
        (np.full((6, 2), 0.5), "2 values an image, and not a single 1"),
        (np.array([None] * 6, object), r"pickled objects.*astype\(str\)"),
    ],
)
def test_labels_that_are_no_classes_say_where(
    values: np.ndarray, told: str, tmp_path: Path
) -> None:
    """Soft labels and gaps look like classes from afar; no library's warning stands before it."""
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=values)
    with warnings.catch_warnings(action="error"), pytest.raises(DatasetError, match=told):
        _labelled(tmp_path / "x.npz", tmp_path)


def test_list_of_labels_is_not_told_as_left_out(tmp_path: Path) -> None:
    """It was "no image", though each image has its class from there."""
    path = _edm(tmp_path, [["00000/img00000000.png", 0], ["00000/img00000001.png", 1]])
    told: list[str] = []
    ref = ingest(str(path), MemoryStore(), tmp_path / "c", labels="auto", say=told.append)
    assert ref.class_counts == (1, 1)
    assert told[0] == "2 images taken; files of labels (dataset.json): 1"
