"""Data sets: what can be taken in, what is refused and how it is said, and the local cache."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.artifacts.datasets.chunks import content_sha256
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.refs import NAMED_SHA256, DatasetRef, describe, resolve_source
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import DatasetError
from orchestrator.store.keys import dataset_folder
from orchestrator.store.objects import StoredObject
from tests.support.fakes import MemoryStore

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), np.uint8)


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder that does not exist yet."""
    return tmp_path / "cache"


def _save_npy(path: Path) -> Path:
    np.save(path / "x.npy", IMAGES)
    return path / "x.npy"


def _save_npz(path: Path) -> Path:
    np.savez_compressed(path / "x.npz", IMAGES, labels=np.arange(12))
    return path / "x.npz"


def _save_idx(path: Path) -> Path:
    data = b"\0\0\x08\x04" + struct.pack(">4I", *IMAGES.shape) + IMAGES.tobytes()
    (path / "images-idx4-ubyte").write_bytes(data)
    return path / "images-idx4-ubyte"


def _save_packed_idx(path: Path) -> Path:
    plain = _save_idx(path)
    packed = path / "images-idx4-ubyte.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    return packed


def _save_folder(path: Path) -> Path:
    folder = path / "pngs"
    for index, image in enumerate(IMAGES):
        file = folder / f"part{index // 5}" / f"{index:03d}.PNG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(image))
    (folder / "README.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image either")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "small.png").write_text("nor this")
    return folder


def _save_tar(path: Path, mode: str = "w", name: str = "x.tar") -> Path:
    with tarfile.open(path / name, mode) as archive:  # type: ignore[call-overload]
        for index in reversed(range(len(IMAGES))):  # the order of the archive is not that of names
            _add(archive, f"images/{index:03d}.png", encode_png(IMAGES[index]))
    return path / name


def _save_packed_tar(path: Path) -> Path:
    return _save_tar(path, "w:gz", "x.tgz")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


SAVERS = [
    _save_npy,
    _save_npz,
    _save_idx,
    _save_packed_idx,
    _save_folder,
    _save_tar,
    _save_packed_tar,
]


@pytest.mark.parametrize("save", SAVERS)
def test_every_format_becomes_the_same_data_set(
    save: Callable[[Path], Path], tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """The hash is over the pixels, so where they came from does not matter."""
    source = str(save(tmp_path))
    ref = ingest(source, store, cache)
    assert ref == DatasetRef(content_sha256(IMAGES), 12, 6, 5, 3, source)
    np.testing.assert_array_equal(np.load(fetch(store, ref.sha256, cache)), IMAGES)


@pytest.mark.parametrize("save", [_save_npz, _save_tar, _save_folder])
def test_source_in_a_bucket_is_read_like_a_path(
    save: Callable[[Path], Path], tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Large sets lie in a bucket, not on the machine that submits."""
    saved = save(tmp_path)
    buckets = {"s3://data/sets": MemoryStore(), f"s3://data/sets/{saved.name}": MemoryStore()}
    if saved.is_dir():
        for file in filter(Path.is_file, saved.rglob("*.*")):
            key = file.relative_to(saved).as_posix()
            buckets[f"s3://data/sets/{saved.name}"].put(key, file.read_bytes())
    else:
        buckets["s3://data/sets"].put(saved.name, saved.read_bytes())
    ref = ingest(f"s3://data/sets/{saved.name}", store, cache, buckets.__getitem__)
    assert ref.sha256 == content_sha256(IMAGES)


def test_empty_bucket_folder_is_an_error(store: MemoryStore, cache: Path) -> None:
    """A misspelt key must not become an empty data set."""
    with pytest.raises(DatasetError, match="holds no PNG"):
        ingest("s3://data/nothing/", store, cache, lambda uri: MemoryStore())
    with pytest.raises(DatasetError, match="must look like"):
        ingest("s3://", store, cache, lambda uri: MemoryStore())


def test_grey_images_get_a_channel(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """(N, H, W) is how grey sets are saved."""
    np.save(tmp_path / "grey.npy", IMAGES[..., 0])
    ref = ingest(str(tmp_path / "grey.npy"), store, cache)
    assert (ref.height, ref.width, ref.channels) == (6, 5, 1)


def test_only_array_of_an_npz_is_taken_whatever_its_name(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """There is nothing to mistake it for."""
    np.savez(tmp_path / "x.npz", train=IMAGES)
    assert ingest(str(tmp_path / "x.npz"), store, cache).sha256 == content_sha256(IMAGES)


def test_set_larger_than_a_block_is_whole(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """Arrays are copied and hashed in blocks; the seams must not show."""
    images = np.random.default_rng(1).integers(0, 256, (3000, 64, 64, 1), np.uint8)
    np.save(tmp_path / "large.npy", images)
    ref = ingest(str(tmp_path / "large.npy"), store, cache)
    assert ref.sha256 == content_sha256(images)
    np.testing.assert_array_equal(np.load(fetch(store, ref.sha256, cache)), images)


def test_digits_have_their_known_hash(store: MemoryStore, cache: Path) -> None:
    """The constant lets `submit` find the set in the store without reading it."""
    ref = ingest("digits", store, cache)
    assert ref.sha256 == NAMED_SHA256["digits"]
    assert (ref.num_images, ref.height, ref.width, ref.channels) == (1797, 8, 8, 1)
    images = np.load(fetch(store, ref.sha256, cache))
    assert (images.min(), images.max()) == (0, 255)


def test_digits_are_those_of_scikit_learn(store: MemoryStore, cache: Path) -> None:
    """The file comes with us, so that no machine needs scikit-learn for the demo."""
    from sklearn.datasets import load_digits

    ref = ingest("digits", store, cache)
    expected = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    np.testing.assert_array_equal(np.load(fetch(store, ref.sha256, cache))[..., 0], expected)


def test_known_set_in_the_store_is_not_made_again(
    store: MemoryStore, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has that hash is that set, whoever put it there."""
    first = ingest("digits", store, cache)
    monkeypatch.setattr("orchestrator.artifacts.datasets.sources._DIGITS_FILE", tmp_path / "none")
    assert ingest("digits", store, tmp_path / "other") == first


def test_digits_need_no_scikit_learn(tmp_path: Path) -> None:
    """A training node has none; and importing it costs the first `submit` two seconds."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from pathlib import Path\n"
        "from orchestrator.artifacts.datasets.sources import open_source\n"
        "print(open_source('digits', Path(), lambda uri: None).num_images)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1797"]


def test_manifest_comes_last_and_only_once(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """A set with a manifest is whole; ingesting again writes nothing."""
    source = str(_save_npy(tmp_path))
    ref = ingest(source, store, cache)
    folder = f"datasets/{ref.sha256}/"
    chunk, manifest, prepared = store.objects
    assert chunk.startswith("datasets/chunks/")
    assert manifest == f"{folder}manifest.json"
    assert prepared.startswith("datasets/prepared/")
    before = {key: stored.etag for key, stored in store.objects.items()}
    assert ingest(source, store, cache) == ref
    assert {key: stored.etag for key, stored in store.objects.items()} == before
    assert json.loads(store.get(f"{folder}manifest.json").body)["format_version"] == 2
    assert describe(store, ref.sha256) == ref


def test_nothing_is_left_in_the_cache_but_the_set(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A refused source leaves no half-made copy behind."""
    ref = ingest(str(_save_npy(tmp_path)), store, cache)
    (tmp_path / "bad.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    with pytest.raises(DatasetError):
        ingest(str(tmp_path / "bad.npy"), store, cache)
    assert list(cache.iterdir()) == []
    assert not [key for key in store.objects if "preparing" in key]
    assert describe(store, ref.sha256) == ref


def _array(value: object) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        np.save(folder / "bad.npy", np.asarray(value))
        return folder / "bad.npy"

    return save


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 2, 2, 3), np.float32), r"bad\.npy holds float32 values, .*value_range"),
        (np.zeros((4, 2, 2, 3), np.float64), r"bad\.npy holds float64 values; save .* float32"),
        (np.zeros((4, 2, 2, 3), np.int64), r"bad\.npy holds int64 values; save .* uint8, uint16"),
        (np.array([{}, {}], dtype=object), r"bad\.npy holds pickled objects"),
        (np.zeros((4, 3), np.uint8), r"bad\.npy has the shape \(4, 3\)"),
        (np.zeros((0, 2, 2, 3), np.uint8), r"holds no images"),
        (np.zeros((4, 2, 2, 65), np.uint8), r"65 channels, 64 at most"),
        (np.zeros((4, 3, 8, 8), np.uint8), r"looks like \(N, C, H, W\)"),
        (np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8)), r"Fortran order"),
    ],
)
def test_array_that_holds_no_images_is_refused(
    value: np.ndarray, message: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """The message names the file and says what to do."""
    with pytest.raises(DatasetError, match=message):
        ingest(str(_array(value)(tmp_path)), store, cache)
    assert not store.objects


@pytest.mark.parametrize("save", [s for s in SAVERS if s is not _save_folder])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.59])
def test_cut_off_file_is_refused(
    save: Callable[[Path], Path], fraction: float, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A download that broke off must not train on half of the images."""
    path = save(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(DatasetError, match=path.name):
        ingest(str(path), store, cache)
    assert not store.objects


def test_tar_that_ends_between_two_members_is_refused(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Python's tarfile takes this for the end of the archive and says nothing."""
    path = _save_tar(tmp_path)
    with tarfile.open(path) as archive:
        cut = archive.getmembers()[5].offset
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DatasetError, match="no end mark"):
        ingest(str(path), store, cache)


def test_longer_array_than_its_header_says_is_refused(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """One of the two is wrong, and nobody can say which."""
    path = _save_npy(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DatasetError, match="goes on after its 12 images"):
        ingest(str(path), store, cache)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_odd_member_of_a_tar_is_refused_by_name(
    kind: bytes, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A link could point anywhere on the machine."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        _add(archive, "a.png", encode_png(IMAGES[0]))
        odd = tarfile.TarInfo("b.png")
        odd.type, odd.linkname = kind, "/etc/passwd"
        archive.addfile(odd)
    with pytest.raises(DatasetError, match=r"x\.tar: b\.png is a link"):
        ingest(str(tmp_path / "x.tar"), store, cache)


def test_name_that_leaves_the_folder_harms_nothing(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Members are read into memory and never written under their names."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        _add(archive, "../../escape.png", encode_png(IMAGES[0]))
    assert ingest(str(tmp_path / "x.tar"), store, cache).num_images == 1
    assert not list(tmp_path.parent.glob("escape*"))


def test_same_name_twice_in_a_tar_is_refused(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Which of the two is meant cannot be told."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for image in IMAGES[:2]:
            _add(archive, "a.png", encode_png(image))
    with pytest.raises(DatasetError, match=r"holds a\.png twice"):
        ingest(str(tmp_path / "x.tar"), store, cache)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (encode_png(np.zeros((6, 6, 3), np.uint8)), r"zz\.png is 6 x 6 with 3 channels but .*000"),
        (encode_png(np.zeros((6, 5, 1), np.uint8)), r"zz\.png is 6 x 5 with 1 channel but"),
        (b"", r"zz\.png is not a readable PNG, JPEG"),
        (b"GIF89a", r"zz\.png is not a readable PNG, JPEG"),
        (b"<html>", r"zz\.png is not a readable PNG, JPEG"),
        (encode_png(IMAGES[0])[:-30], r"zz\.png is damaged"),
    ],
)
def test_odd_file_of_a_folder_is_refused_by_name(
    image: bytes, message: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """One bad file among 50,000 must be findable."""
    folder = _save_folder(tmp_path)
    (folder / "zz.png").write_bytes(image)
    with pytest.raises(DatasetError, match=message):
        ingest(str(folder), store, cache)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x01\x07", "labels have 1"),
        ("empty.npy", b"", "is empty"),
        ("notes.txt", b"hello", "cannot be read"),
        ("v9.npy", b"\x93NUMPY\x09\0", "version"),
    ],
)
def test_file_of_another_kind_is_refused(
    name: str, data: bytes, message: str, tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """The kind is told by content, so any file may be given by mistake."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        ingest(str(tmp_path / name), store, cache)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_npz_without_clear_images_lists_what_it_has(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Guessing could train on a test set."""
    np.savez(tmp_path / "x.npz", train=IMAGES, test=IMAGES)
    with pytest.raises(DatasetError, match="its arrays: train, test"):
        ingest(str(tmp_path / "x.npz"), store, cache)
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("a.mp4", b"")
    with pytest.raises(DatasetError, match=r"y\.zip holds no PNG.*\.mp4 1"):
        ingest(str(tmp_path / "y.zip"), store, cache)


def test_folder_without_images_is_refused(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """It is the wrong folder."""
    (tmp_path / "sub").mkdir()
    with pytest.raises(DatasetError, match="holds no PNG"):
        ingest(str(tmp_path / "sub"), store, cache)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("Digits", "did you mean 'digits'"),
        ("imagenet", "known: digits"),
        ("sets/none.npz", "there is no file or folder"),
        ("https://example.org/x.npz", "only paths and s3://"),
    ],
)
def test_unknown_source_is_refused_before_anything_is_read(
    source: str, message: str, tmp_path: Path
) -> None:
    """Validation happens before a job exists."""
    with pytest.raises(DatasetError, match=message):
        resolve_source(source, tmp_path)


def test_relative_path_is_relative_to_the_job_file(tmp_path: Path) -> None:
    """A job file means the same from any working folder."""
    _save_npy(tmp_path)
    assert resolve_source("x.npy", tmp_path) == str((tmp_path / "x.npy").resolve())
    assert resolve_source("digits", tmp_path) == "digits"
    assert resolve_source("s3://b/x.npy", tmp_path) == "s3://b/x.npy"


def test_source_that_vanished_is_named(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """It may be gone between validation and reading."""
    with pytest.raises(DatasetError, match=r"gone\.npy: there is no such file"):
        ingest(str(tmp_path / "gone.npy"), store, cache)


def test_unusable_cache_folder_is_named(tmp_path: Path, store: MemoryStore) -> None:
    """The user must learn which folder it is, not see a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"local cache .*file.* cannot be written"):
        ingest(str(_save_npy(tmp_path)), store, tmp_path / "file")


def test_fetch_on_another_machine_downloads_and_verifies(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Workers run where nothing was ingested."""
    ref = ingest(str(_save_npy(tmp_path)), store, cache)
    path = fetch(store, ref.sha256, tmp_path / "worker")
    np.testing.assert_array_equal(np.load(path), IMAGES)


def test_damaged_object_is_never_published(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """A bit that flipped in the store would silently change every run."""
    ref = ingest(str(_save_npy(tmp_path)), store, cache)
    (key,) = (key for key in store.objects if key.endswith(".npy"))
    for damaged in (store.get(key).body[:-1], store.get(key).body[:-1] + b"\0"):
        store.put(key, damaged)
        with pytest.raises(DatasetError, match="is damaged"):
            fetch(store, ref.sha256, tmp_path / "worker")
    assert not list((tmp_path / "worker").glob("*/images.npy"))


def test_shortened_cache_file_is_fetched_again(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """A power cut can leave a file shorter than it was."""
    ref = ingest(str(_save_npy(tmp_path)), store, cache)
    path = fetch(store, ref.sha256, cache)
    os.truncate(path, path.stat().st_size - 100)
    np.testing.assert_array_equal(np.load(fetch(store, ref.sha256, cache)), IMAGES)


def test_workers_of_a_node_fetch_once(tmp_path: Path, cache: Path) -> None:
    """Eight ranks that download the same 100 GB would take eight times as long."""
    downloads = []

    class CountingStore(MemoryStore):
        def get(self, key: str) -> StoredObject:
            if key.endswith(".npy"):
                downloads.append(key)
            return super().get(key)

    store = CountingStore()
    ref = ingest(str(_save_npy(tmp_path)), store, cache)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: fetch(store, ref.sha256, tmp_path / "node"), range(8)))
    assert len(paths) == len(downloads) == 1


@pytest.mark.parametrize("sha256", ["0" * 64, "../../etc"])
def test_unknown_hash_is_refused(sha256: str, store: MemoryStore, cache: Path) -> None:
    """A hash is part of a key and of a path."""
    with pytest.raises(DatasetError):
        fetch(store, sha256, cache)


def test_describe_says_when_a_set_is_not_there(store: MemoryStore) -> None:
    """The store may have been emptied since the job was queued."""
    with pytest.raises(DatasetError, match="holds no data set 000000000000"):
        describe(store, "0" * 64)


def test_jpeg_folder_is_read(tmp_path: Path, store: MemoryStore, cache: Path) -> None:
    """Photos come as JPEG; one mode for all of them is enough."""
    for index in range(3):
        Image.new("RGB", (7, 6), (index, 0, 0)).save(tmp_path / f"{index}.jpeg")
    ref = ingest(str(tmp_path), store, cache)
    assert (ref.num_images, ref.height, ref.width, ref.channels) == (3, 6, 7, 3)


def test_set_of_the_first_format_stays_readable(
    tmp_path: Path, store: MemoryStore, cache: Path
) -> None:
    """Stores of last year hold one array and a manifest without type, range and chunks."""
    sha256 = content_sha256(IMAGES)
    np.save(tmp_path / "images.npy", IMAGES)
    body = (tmp_path / "images.npy").read_bytes()
    store.put(f"{dataset_folder(sha256)}images.npy", body)
    old = {"format_version": 1, "size_bytes": len(body), "sha256": sha256, "source": "x.npy"}
    shape = {"num_images": 12, "height": 6, "width": 5, "channels": 3}
    store.put(f"{dataset_folder(sha256)}manifest.json", json.dumps({**old, **shape}).encode())
    ref = describe(store, sha256)
    assert (ref.dtype, ref.value_range, ref.num_classes) == ("uint8", (0.0, 255.0), 0)
    np.testing.assert_array_equal(np.load(fetch(store, sha256, cache)), IMAGES)
    assert ingest(str(_save_npy(tmp_path)), store, cache).sha256 == sha256
    assert store.get(f"{dataset_folder(sha256)}images.npy").body == body
