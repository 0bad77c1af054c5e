"""Sources of every kind: the same set from each, and a word on everything that is left out."""

import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import zstandard
from PIL import Image

from orchestrator.artifacts.datasets.chunks import content_sha256
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.labels import fetch_labels
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import DatasetError
from tests.support.fakes import MemoryStore
from tests.support.tars import tar_bytes

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), np.uint8)
CLASSES = ["cat" if index % 3 else "dog" for index in range(12)]
NAMES = [f"{name}/{index:03d}.png" for index, name in enumerate(CLASSES)]
# A set that is ordered by path: the cats first.
ORDER = sorted(range(12), key=lambda index: NAMES[index])
SHA256 = content_sha256(IMAGES[ORDER])


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder that does not exist yet."""
    return tmp_path / "cache"


def _files() -> dict[str, bytes]:
    return {name: encode_png(IMAGES[index]) for index, name in enumerate(NAMES)}


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def _folder(path: Path) -> Path:
    return _write(path / "set", _files())


def _one_tar(path: Path) -> Path:
    return _write(path, {"set.tar": tar_bytes(_files())}) / "set.tar"


def _packed_tar(path: Path) -> Path:
    return _write(path, {"set.tgz": gzip.compress(tar_bytes(_files()))}) / "set.tgz"


def _zstd_tar(path: Path) -> Path:
    packed = zstandard.ZstdCompressor().compress(tar_bytes(_files()))
    return _write(path, {"set.tar.zst": packed}) / "set.tar.zst"


def _one_zip(path: Path) -> Path:
    return _write(path, {"set.zip": _zip(_files())}) / "set.zip"


def _stored_zip(path: Path) -> Path:
    return _write(path, {"set.zip": _zip(_files(), zipfile.ZIP_STORED)}) / "set.zip"


def _shards(path: Path) -> Path:
    files = list(_files().items())
    shards = {f"shard-{n:03d}.tar": tar_bytes(dict(files[n::3])) for n in range(3)}
    return _write(path / "shards", shards)


def _arrow(path: Path) -> Path:
    rows = [{"bytes": encode_png(IMAGES[index]), "path": NAMES[index]} for index in ORDER]
    names = sorted(set(CLASSES))
    table = pa.table({"image": rows, "label": [names.index(CLASSES[index]) for index in ORDER]})
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path / "set.parquet", row_group_size=5)
    return path / "set.parquet"


def _arrow_shards(path: Path) -> Path:
    whole = pq.read_table(_arrow(path))
    (path / "tables").mkdir()
    pq.write_table(whole.slice(0, 7), path / "tables" / "train-00000-of-00002.parquet")
    pq.write_table(whole.slice(7), path / "tables" / "train-00001-of-00002.parquet")
    return path / "tables"


def _npz(path: Path) -> Path:
    names = sorted(set(CLASSES))
    labels = np.array([names.index(CLASSES[index]) for index in ORDER])
    np.savez(path / "set.npz", x_train=IMAGES[ORDER], y_train=labels[:, np.newaxis])
    return path / "set.npz"


def _tiffs(path: Path) -> Path:
    tifffile.imwrite(path / "set.tif", IMAGES[ORDER], photometric="rgb")
    return path / "set.tif"


SAVERS = [
    _folder,
    _one_tar,
    _packed_tar,
    _zstd_tar,
    _one_zip,
    _stored_zip,
    _shards,
    _arrow,
    _arrow_shards,
    _npz,
    _tiffs,
]
LABELLED = [saver for saver in SAVERS if saver is not _tiffs]


def _in_bucket(source: Path) -> tuple[str, Callable[[str], MemoryStore]]:
    """Return the URI of a source in a bucket, and what opens the bucket."""
    bucket = MemoryStore()
    paths = [p for p in source.rglob("*") if p.is_file()] if source.is_dir() else [source]
    for path in paths:
        bucket.put(path.relative_to(source.parent).as_posix(), path.read_bytes())

    def open_place(uri: str) -> MemoryStore:
        prefix = uri.removeprefix("s3://data").strip("/")
        below = MemoryStore()
        start = f"{prefix}/" if prefix else ""
        for key, stored in bucket.objects.items():
            if key.startswith(start):
                below.objects[key[len(start) :]] = stored
        return below

    return f"s3://data/{source.name}", open_place


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("where", ["path", "bucket"])
def test_same_images_have_one_name_whatever_they_came_in(
    save: Callable[[Path], Path], where: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A set is its pixels in order; files, archives and tables are only wrappings."""
    source = save(tmp_path)
    if where == "path":
        ref = ingest(str(source), store, cache)
    else:
        uri, open_place = _in_bucket(source)
        ref = ingest(uri, store, cache, open_place)
    assert ref.sha256 == SHA256
    np.testing.assert_array_equal(np.load(fetch(store, SHA256, cache)), IMAGES[ORDER])


@pytest.mark.parametrize("save", LABELLED)
def test_same_labels_have_one_name_whatever_they_came_in(
    save: Callable[[Path], Path], tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Folders, a column and an array can say the same."""
    ref = ingest(str(save(tmp_path)), store, cache, labels="auto")
    path = fetch_labels(store, ref, cache)
    assert path is not None
    assert ref.images == SHA256
    assert np.load(path).tolist() == [0] * 8 + [1] * 4
    names = ("0", "1") if save is _npz else ("cat", "dog")
    assert (ref.class_names, ref.class_counts) == (names, (8, 4))


def test_list_of_edm_and_members_of_webdataset_give_labels(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """The tools that made those archives wrote the labels beside the images."""
    numbers = {name: int(name.startswith("dog")) for name in NAMES}
    listed = {"labels": [[name, number] for name, number in numbers.items()]}
    edm = _zip({**_files(), "dataset.json": json.dumps(listed).encode()})
    classes = {name.replace(".png", ".cls"): str(n).encode() for name, n in numbers.items()}
    shard = tar_bytes({**_files(), **classes})
    _write(tmp_path, {"edm.zip": edm, "shards/0.tar": shard, "w.tar": shard})
    found = {
        ingest(str(tmp_path / name), store, cache, labels="auto").sha256
        for name in ("edm.zip", "shards", "w.tar")
    }
    assert len(found) == 1


def test_idx_labels_beside_the_images_are_found(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """MNIST comes as two files."""
    images = b"\0\0\x08\x03" + struct.pack(">3I", 12, 6, 5) + IMAGES[..., 0].tobytes()
    labels = b"\0\0\x08\x01" + struct.pack(">I", 12) + bytes(index % 3 for index in range(12))
    files = {"train-images-idx3-ubyte.gz": images, "train-labels-idx1-ubyte.gz": labels}
    _write(tmp_path, {name: gzip.compress(data) for name, data in files.items()})
    ref = ingest(str(tmp_path / "train-images-idx3-ubyte.gz"), store, cache, labels="auto")
    assert ref.class_counts == (4, 4, 4)


@pytest.mark.parametrize("header", ["name,label\n", ""])
def test_csv_gives_labels_by_path_name_or_stem(
    header: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """That is how annotators hand them over."""
    how: tuple[Callable[[str], str], ...] = (
        lambda name: name,
        lambda name: name.split("/")[1],
        lambda name: name[-7:-4],
    )
    expected = ingest(str(_folder(tmp_path)), store, cache, labels="folders").sha256
    for number, of in enumerate(how):
        rows = [f"{of(name)},{name.split('/')[0]}" for name in NAMES]
        (tmp_path / f"{number}.csv").write_text(header + "\n".join(rows))
        mode = f"file:{tmp_path / f'{number}.csv'}"
        assert ingest(str(tmp_path / "set"), store, cache, labels=mode).sha256 == expected
    (tmp_path / "short.csv").write_text("\n".join(f"{name},x" for name in NAMES[:-5]))
    with pytest.raises(DatasetError, match=r"short\.csv gives no class to .* and 2 more"):
        ingest(str(tmp_path / "set"), store, cache, labels=f"file:{tmp_path / 'short.csv'}")


def test_image_beside_the_class_folders_has_no_class(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """It is told by name: it may have been put there by mistake."""
    _write(_folder(tmp_path), {"stray.png": encode_png(IMAGES[0])})
    with pytest.raises(DatasetError, match=r"gives no class to stray\.png"):
        ingest(str(tmp_path / "set"), store, cache, labels="folders")


def test_source_without_labels_says_what_could_give_some(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A conditional model needs them."""
    np.save(tmp_path / "x.npy", IMAGES)
    with pytest.raises(DatasetError, match=r"dataset\.labels: \{file: PATH\}"):
        ingest(str(tmp_path / "x.npy"), store, cache, labels="auto")


def test_everything_left_out_of_a_folder_is_told(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """What is missing from a set is noticed months later, if ever."""
    folder = _folder(tmp_path)
    png = encode_png(IMAGES[0])
    _write(
        folder,
        {
            "__MACOSX/a.png": b"",
            ".hidden.png": b"",
            ".ipynb_checkpoints/a.png": b"",
            "notes.txt": b"x",
            "film.mp4": b"x",
            "README": b"x",
            "cat/no-suffix": png,
            "raw.dng": b"II*\0",
        },
    )
    elsewhere = _write(tmp_path / "elsewhere", {"linked.png": png})
    (folder / "link").symlink_to(elsewhere)
    (folder / "zlink.png").symlink_to(elsewhere / "linked.png")
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere")
    (folder / "cat" / "loop").symlink_to(folder)
    os.mkfifo(folder / "z.png")
    told: list[str] = []
    ref = ingest(str(folder), store, cache, say=told.append)
    assert ref.num_images == 12 + 3
    (line,) = told
    for part in (
        "15 images taken",
        "4 no image (.dng 1, .mp4 1, .txt 1, no suffix 1)",
        "2 hidden",
        "1 __MACOSX",
        "1 dangling link (dangling.png)",
        "1 link in a loop (cat/loop)",
        "1 no plain file (z.png)",
        "2 links followed",
    ):
        assert part in line
    survey = read_manifest(store, ref.sha256).survey
    assert survey is not None
    assert survey.links_followed == 2


def test_folder_that_cannot_be_entered_is_named(
    tmp_path: Path, store: MemoryStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that was mounted for another user looks like an empty one."""
    folder, told = _folder(tmp_path), list[str]()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    ingest(str(folder), store, cache, say=told.append)
    assert "8 images taken; 1 left out: 1 unreadable folder (dog/)" in told[0]


def test_all_damaged_files_are_found_in_one_pass(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """One a run would take as many runs as there are."""
    folder = _write(tmp_path / "set", {f"bad{n:03d}.png": b"\x89PNG" for n in range(25)})
    _write(folder, _files())
    with pytest.raises(
        DatasetError, match=r"25 of 37 images cannot be read: .*bad000\.png"
    ) as told:
        ingest(str(folder), store, cache)
    message = str(told.value)
    assert message.count("bad0") == 20
    assert "and 5 more" in message
    assert "dataset.skip_damaged: true" in message
    assert not store.objects


def test_damaged_files_are_passed_over_where_that_is_asked_for(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Labels stay with their images, and the manifest says which ones are missing."""
    folder, told = _folder(tmp_path), list[str]()
    _write(folder, {"cat/000.png": b"\x89PNG"})
    reading = Reading(skip_damaged=True)
    args = {"reading": reading, "labels": "folders", "say": told.append}
    ref = ingest(str(folder), store, cache, **args)  # type: ignore[arg-type]
    assert (ref.images, ref.class_counts) == (SHA256, (8, 4))
    assert "damaged, passed over: 1" in told[0]
    manifest = read_manifest(store, ref.sha256)
    assert manifest.num_damaged == 1
    assert "cat/000.png" in manifest.damaged[0].problem


def _bad_gzip(data: bytes) -> bytes:
    packed = gzip.compress(data)
    return packed[:-8] + bytes(4) + packed[-4:]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tgz", _bad_gzip(tar_bytes(_files())), r"a\.tgz cannot be read: CRC check failed"),
        (
            "a.tar",
            tar_bytes(_files()) + tar_bytes({"b.png": b"x"}),
            r"a\.tar goes on after its end mark",
        ),
        ("a.tar.zst", zstandard.compress(tar_bytes(_files()))[:-9], r"a\.tar\.zst"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50), r"a\.7z is a 7z archive; unpack it"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), r"a\.h5 is an HDF5 file; save its images"),
        ("a.pkl", b"\x80\x04\x95" + bytes(50), r"a\.pkl is a Python pickle"),
        ("a.mdb", bytes(16) + b"\xde\xc0\xef\xbe" + bytes(500), r"a\.mdb is an LMDB database"),
        ("a.parquet", b"PAR1" + bytes(50), r"a\.parquet cannot be read as Parquet"),
        ("a.zip", _zip(_files())[:-200], r"a\.zip cannot be read"),
        ("a.zip", _zip({"notes.txt": b"x"}), r"a\.zip holds no PNG.*\.txt 1"),
    ],
)
def test_archive_that_is_no_source_says_what_to_do(
    name: str, data: bytes, message: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Four times "not a gzip file" helps nobody."""
    with pytest.raises(DatasetError, match=message):
        ingest(str(_write(tmp_path, {name: data}) / name), store, cache)
    assert not store.objects


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data.mdb": bytes(64), "lock.mdb": b""}, "is an LMDB database"),
        ({"data_batch_1": b"\x80\x02}" + bytes(64)}, "data_batch_1 is a Python pickle"),
        ({"a.h5": bytes(64)}, "is an HDF5 file"),
        ({"train.zip": b"x"}, r"give one of its files itself, such as train\.zip"),
        ({"a.txt": b"x"}, r"holds no PNG.*1 no image \(\.txt 1\)"),
    ],
)
def test_folder_without_pictures_says_what_it_holds(
    files: dict[str, bytes], message: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """It may be the right folder of the wrong kind."""
    with pytest.raises(DatasetError, match=message):
        ingest(str(_write(tmp_path / "set", files)), store, cache)


def test_zip_member_with_other_bytes_is_damaged(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A zip has a checksum for each member, which its pixels need not have."""
    bmp = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(bmp, "BMP")
    data = bytearray(_zip({"a.bmp": bmp.getvalue()}, zipfile.ZIP_STORED))
    data[data.index(b"BM") + 60] ^= 1
    _write(tmp_path, {"a.zip": bytes(data)})
    with pytest.raises(DatasetError, match="its checksum does not fit"):
        ingest(str(tmp_path / "a.zip"), store, cache)


@pytest.mark.parametrize(
    "key", ["a#b.zip", "what?.zip", "two words.zip", "\u00fcml\u00e4ut.zip", "a%20b.zip"]
)
def test_any_key_of_a_bucket_can_be_read(
    key: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A bucket is not ours to name."""
    source = _write(tmp_path, {key: _zip(_files())}) / key
    uri, open_place = _in_bucket(source)
    assert ingest(uri, store, cache, open_place).sha256 == SHA256


def test_photos_of_all_sizes_become_one(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """Without a size the error says how to ask for one."""
    for index in range(4):
        Image.new("RGB", (40 + index, 30), (9, 9, 9)).save(tmp_path / f"{index}.jpg")
    with pytest.raises(DatasetError, match=r"30 x 41 .*dataset\.image_size"):
        ingest(str(tmp_path), store, cache)
    Image.new("L", (33, 44), 9).save(tmp_path / "grey.png")
    with pytest.raises(DatasetError, match=r"1 channel .*dataset\.channels"):
        ingest(str(tmp_path), store, cache, reading=Reading(image_size=(16, 16)))
    reading = Reading(image_size=(16, 16), channels="rgb")
    ref = ingest(str(tmp_path), store, cache, reading=reading)
    assert (ref.num_images, ref.height, ref.width, ref.channels) == (5, 16, 16, 3)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float16", "float32", ">u2", ">f4"])
def test_arrays_of_other_types_keep_type_range_and_channels(
    dtype: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A field of twelve quantities is an image with twelve channels."""
    values = np.arange(5 * 4 * 3 * 12).reshape(5, 4, 3, 12).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    is_float = np.dtype(dtype).kind == "f"
    reading = Reading(value_range=(0.0, 2000.0)) if is_float else Reading()
    ref = ingest(str(tmp_path / "x.npy"), store, cache, reading=reading)
    native = np.dtype(dtype).newbyteorder("=")
    bounds = (0.0, 2000.0) if is_float else (np.iinfo(native).min, np.iinfo(native).max)
    assert (ref.dtype, ref.value_range, ref.channels) == (native.name, bounds, 12)
    stored = np.load(fetch(store, ref.sha256, cache))
    assert stored.dtype == native
    np.testing.assert_array_equal(stored, values)


@pytest.mark.parametrize(
    ("value_range", "message"),
    [("auto", r"no range of their own"), ((0.0, 0.5), r"values from 0 to 1, which leave")],
)
def test_floats_need_a_range_that_holds_them(
    value_range: Any, message: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Guessing -1 to 1 would clip half of some sets in silence."""
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 5 * 4 * 3).astype(np.float32).reshape(5, 4, 3))
    with pytest.raises(DatasetError, match=message):
        ingest(str(tmp_path / "x.npy"), store, cache, reading=Reading(value_range=value_range))
    found = ingest(str(tmp_path / "x.npy"), store, cache, reading=Reading(value_range="minmax"))
    assert found.value_range == (0.0, 1.0)


def test_range_is_part_of_the_name_where_it_is_not_that_of_bytes(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """The same numbers, read in another way, are other images."""
    np.save(tmp_path / "x.npy", IMAGES)
    plain = ingest(str(tmp_path / "x.npy"), store, cache)
    half = ingest(str(tmp_path / "x.npy"), store, cache, reading=Reading(value_range=(0.0, 510.0)))
    same = ingest(str(tmp_path / "x.npy"), store, cache, reading=Reading(value_range=(0.0, 255.0)))
    assert plain.sha256 == same.sha256 != half.sha256


def test_values_that_are_no_numbers_are_named(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """One of them ends a training with a loss that is none."""
    values = np.zeros((3, 4, 4), np.float32)
    values[1, 2, 2] = np.nan
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DatasetError, match=r"x\.npy: image 1 holds values that are not finite"):
        ingest(str(tmp_path / "x.npy"), store, cache, reading=Reading(value_range=(-1.0, 1.0)))


def test_set_of_the_store_is_a_source_by_its_name(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A smaller copy is made without the files."""
    ref = ingest(str(_folder(tmp_path)), store, cache, labels="folders")
    assert ingest(ref.sha256, store, cache, labels="auto") == ref
    assert ingest(ref.sha256, store, cache).sha256 == SHA256
    reading = Reading(image_size=(3, 3))
    small = ingest(ref.sha256, store, cache, reading=reading, labels="auto")
    assert (small.num_images, small.height, small.class_counts) == (12, 3, (8, 4))
    with pytest.raises(DatasetError, match="no data set called 0123456789ab"):
        ingest("0123456789ab", store, cache)


def test_description_keeps_one_image_sets_working(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Overfitting one image is the first thing that people try."""
    (tmp_path / "one.png").write_bytes(encode_png(IMAGES[0]))
    ref = ingest(str(tmp_path / "one.png"), store, cache)
    assert isinstance(ref, DatasetRef)
    assert ref.num_images == 1
