"""Files as people have them: each is read rightly, or one line says what, where and what to do."""

import io
import os
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import zstandard
from numpy.typing import NDArray

from orchestrator.artifacts.datasets import array_pictures
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.label_choice import find_labels
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.pictures import NO_EXIF
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.sources import open_source
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import DatasetError
from orchestrator.store.s3_store import open_bucket
from tests.support.fakes import MemoryStore
from tests.support.tars import write_tar

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
PNGS = [encode_png(image) for image in IMAGES]


def _taken(
    source: Path, tmp_path: Path, reading: Reading | None = None
) -> tuple[NDArray[Any], str]:
    """Return the images that a source gives, and what was told of it."""
    store, lines = MemoryStore(), list[str]()
    ref = ingest(str(source), store, tmp_path / "cache", reading=reading, say=lines.append)
    assert all(line.isprintable() for line in lines)
    return np.load(fetch(store, ref.sha256, tmp_path / "node")), lines[0]


def _refusal(source: Path, tmp_path: Path) -> str:
    store = MemoryStore()
    with pytest.raises(DatasetError) as caught:
        ingest(str(source), store, tmp_path / "cache")
    assert not store.objects
    assert str(caught.value).isprintable()
    return str(caught.value)


def _classes(source: Path, tmp_path: Path) -> list[int]:
    labels = find_labels(open_source(str(source), tmp_path, open_bucket), "auto", open_bucket)
    assert labels is not None
    return [int(value) for value in labels.values]


def _folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, body in files.items():
        path = root / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return root / "set"


def _zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def _npy(array: NDArray[Any]) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(rows: bytes, head: tuple[int, int, int, int], extra: bytes) -> bytes:
    ihdr = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", *head, 0, 0, 0))
    data = _png_chunk(b"IDAT", zlib.compress(rows)) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + ihdr + extra + data


@pytest.mark.parametrize(
    ("pixels", "colour", "clear"),
    [
        (IMAGES[0, ..., :1], 0, struct.pack(">H", int(IMAGES[0, 2, 3, 0]))),
        (IMAGES[0], 2, struct.pack(">3H", *map(int, IMAGES[0, 2, 3]))),
        (IMAGES[0, ..., :1].astype(">u2") * 257, 0, None),
    ],
)
def test_level_that_a_png_calls_clear_is_clear(
    pixels: NDArray[Any], colour: int, clear: bytes | None, tmp_path: Path
) -> None:
    """Its tRNS was passed over in grey and RGB, so what a viewer shows as clear was opaque."""
    key = pixels[2, 3]
    clear = clear or struct.pack(">H", int(key[0]))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    bits = 8 * pixels.itemsize
    data = _png(rows, (8, 8, bits, colour), _png_chunk(b"tRNS", clear))
    full = 255 if bits == 8 else 65535
    alpha = np.where((pixels == key).all(axis=-1, keepdims=True), 0, full)
    found, _ = _taken(_folder(tmp_path, {"a.png": data}), tmp_path)
    np.testing.assert_array_equal(found[0], np.concatenate([pixels, alpha], axis=-1))


def test_exif_that_cannot_be_read_is_passed_over_and_told(tmp_path: Path) -> None:
    """Every viewer shows such a picture; it was called damaged."""
    data = PNGS[0][:33] + _png_chunk(b"eXIf", b"no tiff!") + PNGS[0][33:]
    found, line = _taken(_folder(tmp_path, {"a.png": data}), tmp_path)
    np.testing.assert_array_equal(found, IMAGES[:1])
    assert NO_EXIF in line


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_that_a_tiff_gives_no_meaning_are_kept(channels: int, tmp_path: Path) -> None:
    """Pillow drops them: of red, green, blue and two of infrared three were left."""
    pixels = np.concatenate([IMAGES[0], IMAGES[1]], axis=-1)[..., :channels]
    packed = io.BytesIO()
    meaning = "rgb" if channels == 5 else "minisblack"
    tifffile.imwrite(packed, pixels, photometric=meaning, planarconfig="contig")
    found, _ = _taken(_folder(tmp_path, {"a.tif": packed.getvalue()}), tmp_path)
    np.testing.assert_array_equal(found[0], pixels)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "git lfs pull"),
        (b"\r\n<!DOCTYPE html><html>404</html>", "a page of HTML"),
        (b"\0\0\0\x18ftypheic" + bytes(60), "HEIC"),
        (b"\0\0\0\x18ftypavif" + bytes(60), "AVIF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
        (b"8BPS\0\1" + bytes(60), "Photoshop"),
        (bytes(128) + b"DICM" + bytes(9), "DICOM"),
        (bytes(5000), "zeros alone"),
    ],
)
def test_file_of_another_kind_says_what_it_is(data: bytes, told: str, tmp_path: Path) -> None:
    """All of these are called photo.jpg somewhere, and stand where a whole set should."""
    assert told in _refusal(_folder(tmp_path, {"a.jpg": data, "b.png": PNGS[0]}), tmp_path)
    (tmp_path / "photos.tar").write_bytes(data)
    assert told in _refusal(tmp_path / "photos.tar", tmp_path)


def test_names_of_any_bytes_are_shown_in_one_line(tmp_path: Path) -> None:
    """A newline in a name broke the line, and a byte that is no UTF-8 the terminal."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in (b"n\new.png", b"\xff.png", b"\x1b[31m.png", b".h\n"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"no picture")
    assert r"n\new.png" in _refusal(folder, tmp_path)
    (folder / "a.png").write_bytes(PNGS[0])
    _, line = _taken(folder, tmp_path, Reading(skip_damaged=True))
    assert r"hidden (.h\n)" in line


def test_folders_may_lie_deeper_than_the_stack(tmp_path: Path) -> None:
    """Looking into them called itself once a folder."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with open("a.png", "wb", opener=lambda path, flags: os.open(path, flags, dir_fd=here)) as file:
        file.write(PNGS[0])
    os.close(here)
    source = open_source(str(tmp_path), tmp_path, open_bucket)
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)  # pytest's own way would recurse
    assert source.num_images == 1


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """`labels: {file: PIPE}` hung without end."""
    os.mkfifo(tmp_path / "labels.csv")
    source = open_source(str(_folder(tmp_path, {"a.png": PNGS[0]})), tmp_path, open_bucket)
    with pytest.raises(DatasetError, match="it is a pipe"):
        find_labels(source, f"file:{tmp_path / 'labels.csv'}", open_bucket)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 12, 64, 64), (9, 3, 4, 4), (4, 1, 28, 28)])
def test_channels_before_the_pixels_are_seen(shape: tuple[int, ...], tmp_path: Path) -> None:
    """PyTorch keeps images so; taken as they stand they are stripes of many channels."""
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    assert "images.transpose(0, 2, 3, 1)" in _refusal(tmp_path / "x.npy", tmp_path)


_SHARDS: list[Callable[[bytes], tuple[str, bytes]]] = [
    lambda body: (".tar", body),
    lambda body: (".tar.gz", zlib.compress(body, wbits=31)),
    lambda body: (".TGZ", zlib.compress(body, wbits=31)),
    lambda body: (".tar.zst", zstandard.compress(body)),
]


@pytest.mark.parametrize("pack", _SHARDS)
def test_packed_shards_are_one_set_in_the_order_of_plain_ones(
    pack: Callable[[bytes], tuple[str, bytes]], tmp_path: Path
) -> None:
    """WebDatasets are kept packed; names come again in each shard, and order by shard then."""
    files = {}
    for shard in (0, 1):
        members = {f"{k}.png": PNGS[2 * k + shard] for k in range(3)}
        members |= {f"{k}.cls": str(k % 2).encode() for k in range(3)}
        body = write_tar(tmp_path / "x", members).read_bytes()
        suffix, packed = pack(body)
        files[f"shard-{shard}{suffix}"] = packed
    folder = _folder(tmp_path, {**files, "README.md": b"hello"})
    found, line = _taken(folder, tmp_path)
    np.testing.assert_array_equal(found, IMAGES)
    assert line == "6 images taken; 1 left out: 1 no image (.md 1); files of labels (.cls): 6"
    assert _classes(folder, tmp_path) == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("first", ["arrow1.png", "{3F2504E0}.png", "p1 .png"])
def test_name_of_the_first_file_does_not_say_what_a_packed_tar_is(
    first: str, tmp_path: Path
) -> None:
    """A tar begins with that name, and was taken for an Arrow file or for JSON."""
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in (first, "x.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PNGS[0])
            tar.addfile(info, io.BytesIO(PNGS[0]))
    images, _ = _taken(path, tmp_path)
    assert len(images) == 2


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    """The others are whole."""
    body = zlib.compress(write_tar(tmp_path / "x", {"a.png": PNGS[0]}).read_bytes(), wbits=31)
    folder = _folder(tmp_path, {"0.tar.gz": body, "1.tar.gz": body[:-30]})
    assert "1.tar.gz cannot be read" in _refusal(folder, tmp_path)


def _npz(**arrays: NDArray[Any]) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


@pytest.mark.parametrize(
    "files",
    [
        {f"{k}.npy": _npy(image) for k, image in enumerate(IMAGES)},
        {"a.npy": _npy(IMAGES[:4]), "b.npy": _npy(IMAGES[4:])},
        {f"{k}.npz": _npz(arr_0=image) for k, image in enumerate(IMAGES)},
        {"a.npz": _npz(arr_0=IMAGES[:1]), "b.npz": _npz(arr_0=IMAGES[1:])},
        {"x_train.npy": _npy(IMAGES), "y_train.npy": _npy(np.arange(6))},
    ],
)
def test_folder_of_arrays_is_a_set(files: dict[str, bytes], tmp_path: Path) -> None:
    """One slice a file, many images a file, or images beside labels."""
    found, _ = _taken(_folder(tmp_path, files), tmp_path)
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        ({"images.npy": _npy(IMAGES), "labels.npy": _npy(np.arange(6) % 3)}, [0, 1, 2, 0, 1, 2]),
        (
            {
                "0.npz": _npz(arr_0=IMAGES[:2], arr_1=np.array(["b", "a"])),
                "1.npz": _npz(arr_0=IMAGES[2:], arr_1=np.array(["ccc", "a", "a", "b"])),
            },
            [1, 0, 2, 0, 0, 1],
        ),
        ({f"{'ab'[k % 2]}/{k}.npy": _npy(IMAGES[k]) for k in range(6)}, [0, 0, 0, 1, 1, 1]),
    ],
)
def test_labels_of_a_folder_of_arrays_are_found(
    files: dict[str, bytes], classes: list[int], tmp_path: Path
) -> None:
    """In the array beside, in each .npz, or in the folders' names."""
    assert _classes(_folder(tmp_path, files), tmp_path) == classes


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ([np.zeros((16, 16, 16), np.uint8)], "one image, or 16 of 16 x 16"),
        ([np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 9, 3), np.uint8)], "1.npy is 8 x 9"),
        ([np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)], "1.npy holds 2 images"),
        ([np.zeros((8, 8), np.int64)], "holds int64 values"),
        ([np.full((8, 8), np.inf, np.float16)], "0.npy holds values that are not finite"),
    ],
)
def test_folder_of_arrays_that_is_no_set_says_why(
    arrays: list[NDArray[Any]], told: str, tmp_path: Path
) -> None:
    """An array has no name for its axes, so what is not clear is not guessed."""
    folder = _folder(tmp_path, {f"{k}.npy": _npy(array) for k, array in enumerate(arrays)})
    with pytest.raises(DatasetError, match=told):
        ingest(str(folder), MemoryStore(), tmp_path / "c", reading=Reading(value_range=(0, 255)))


def test_array_that_unpacks_to_more_than_an_image_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of some kilobytes may unpack to more than the memory."""
    monkeypatch.setattr(array_pictures, "MAX_FILE_BYTES", 1000)
    body = io.BytesIO()
    np.savez_compressed(body, images=np.zeros((64, 64, 3), np.uint8))
    folder = _folder(tmp_path, {"a.npz": body.getvalue()})
    assert "holds more than 1000 bytes" in _refusal(folder, tmp_path)


def test_samples_with_image_and_mask_are_refused(tmp_path: Path) -> None:
    """Masks were trained on as images."""
    members = {f"{k}.{part}": PNGS[k] for k in range(3) for part in ("jpg", "seg.png")}
    told = _refusal(write_tar(tmp_path / "x.tar", members), tmp_path)
    assert "several pictures of each sample (jpg 3, seg.png 3)" in told
    plain = {f"v1.{k}.png": PNGS[k] for k in range(6)}  # dots alone are no parts
    np.testing.assert_array_equal(_taken(write_tar(tmp_path / "y.tar", plain), tmp_path)[0], IMAGES)


def test_members_with_a_dot_before_them_are_the_same_files(tmp_path: Path) -> None:
    """`tar c .` writes "./a.png"; the list beside them says "a.png"."""
    listed = b'{"labels": [["a.png", 1], ["b.png", 0]]}'
    members = {"./a.png": PNGS[0], "./b.png": PNGS[1], "./dataset.json": listed}
    assert _classes(write_tar(tmp_path / "x.tar", members), tmp_path) == [1, 0]
    twice = write_tar(tmp_path / "y.tar", {"a.png": PNGS[0], "./a.png": PNGS[1]})
    assert "holds a.png twice" in _refusal(twice, tmp_path)


def test_zip_of_windows_has_folders(tmp_path: Path) -> None:
    """Its backslashes made each class folder part of a name."""
    path = _zip(tmp_path / "x.zip", {"cat/1.png": PNGS[0], "dog/1.png": PNGS[1]})
    path.write_bytes(path.read_bytes().replace(b"cat/", b"cat\\").replace(b"dog/", b"dog\\"))
    assert _classes(path, tmp_path) == [0, 1]


def test_zip_of_pictures_may_hold_an_array_too(tmp_path: Path) -> None:
    """It was taken for a .npz."""
    members = {**{f"{k}.png": png for k, png in enumerate(PNGS)}, "labels.npy": _npy(np.arange(6))}
    found, line = _taken(_zip(tmp_path / "x.zip", members), tmp_path)
    np.testing.assert_array_equal(found, IMAGES)
    assert "1 no image (.npy 1)" in line


def test_link_in_a_zip_is_named(tmp_path: Path) -> None:
    """Its bytes are the name of another file."""
    link = zipfile.ZipInfo("b.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", PNGS[0])
        archive.writestr(link, "a.png")
    assert "b.png is a link" in _refusal(tmp_path / "x.zip", tmp_path)


def test_second_column_of_pictures_is_told(tmp_path: Path) -> None:
    """Which of the two is trained on should be seen."""
    table = pa.table({"image": PNGS, "mask": PNGS, "label": [[0, 1]] * 6})
    pq.write_table(table, tmp_path / "x.parquet")
    found, line = _taken(tmp_path / "x.parquet", tmp_path)
    np.testing.assert_array_equal(found, IMAGES)
    assert "1 column (mask)" in line


def test_empty_class_folder_is_told(tmp_path: Path) -> None:
    """The class is missing from the set, which may be a mistake."""
    folder = _folder(tmp_path, {"cat/a.png": PNGS[0], "dog/a.png": PNGS[1]})
    (folder / "emu").mkdir()
    assert "1 empty folder (emu)" in _taken(folder, tmp_path)[1]


def _tiff(*pages: tuple[NDArray[Any], dict[str, Any]]) -> bytes:
    packed = io.BytesIO()
    with tifffile.TiffWriter(packed) as tiff:
        for pixels, options in pages:
            tiff.write(pixels, **options)
    return packed.getvalue()


def test_smaller_copies_within_a_tiff_are_no_pages(tmp_path: Path) -> None:
    """Maps and slides carry them; such a picture was refused as a stack."""
    whole = {"photometric": "rgb"}
    data = _tiff((IMAGES[0], whole), (IMAGES[0, ::2, ::2], {**whole, "subfiletype": 1}))
    folder = _folder(tmp_path, {"a.tif": data})
    for source in (folder, folder / "a.tif"):
        np.testing.assert_array_equal(_taken(source, tmp_path)[0], IMAGES[:1])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            _tiff(
                (
                    IMAGES[..., 0],
                    {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)},
                )
            ),
            "is a volume in one page",
        ),
        (b"II*\0" + bytes(4), "holds no page"),
        (b"II*\0\x08\0\0\0" + b"\xff\xff" + bytes(30), "is damaged"),
    ],
)
def test_tiff_that_is_no_picture_says_why_and_nothing_else(
    data: bytes, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a volume the first slice was taken; of damage a library wrote between our lines."""
    folder = _folder(tmp_path, {"a.tif": data})
    assert told in _refusal(folder, tmp_path)
    assert caplog.text == ""


def test_palette_that_is_missing_is_damage(tmp_path: Path) -> None:
    """Such a picture became black."""
    data = _png(b"\0\0\1\2\3", (4, 1, 8, 3), b"")
    assert "palette is missing" in _refusal(_folder(tmp_path, {"a.png": data}), tmp_path)


@pytest.mark.parametrize("head", [b"{'descr': '|u1', (((((\n", b"(" * 90 + b"\n", b"{'a': 1}L\n"])
def test_head_of_an_array_that_is_no_literal_is_damage(head: bytes, tmp_path: Path) -> None:
    """Python's own errors came through."""
    body = b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head
    (tmp_path / "x.npy").write_bytes(body)
    assert "x.npy cannot be read" in _refusal(tmp_path / "x.npy", tmp_path)


@pytest.mark.parametrize("kind", ["npz", "npy", "tar", "tar.gz", "zip", "parquet", "idx", "tif"])
def test_damage_anywhere_ends_in_one_line_or_changes_pixels_alone(
    kind: str, tmp_path: Path
) -> None:
    """No damage of a container is a traceback, or drops an image in silence."""
    grey = IMAGES[..., :1]
    plain = write_tar(tmp_path / "t", {f"{k}.png": png for k, png in enumerate(PNGS)}).read_bytes()
    pictures = {f"{k}.png": png for k, png in enumerate(PNGS)}
    if kind == "parquet":
        pq.write_table(pa.table({"image": PNGS}), tmp_path / "p")
    bodies: dict[str, Callable[[], bytes]] = {
        "npz": lambda: _npz(images=IMAGES),
        "npy": lambda: _npy(IMAGES),
        "tar": lambda: plain,
        "tar.gz": lambda: zlib.compress(plain, wbits=31),
        "zip": lambda: _zip(tmp_path / "z", pictures).read_bytes(),
        "parquet": lambda: (tmp_path / "p").read_bytes(),
        "idx": lambda: b"\0\0\x08\x03" + struct.pack(">3I", 6, 8, 8) + grey.tobytes(),
        "tif": lambda: _tiff(*((image, {"photometric": "rgb"}) for image in IMAGES)),
    }
    whole, noise = bodies[kind](), np.random.default_rng(3)
    path, told = tmp_path / f"x.{kind}", list[str]()
    for _ in range(40):
        body = bytearray(whole)
        for place in noise.integers(0, min(len(body), 400), 3):
            body[place] = noise.integers(256)
        path.write_bytes(body if noise.random() < 0.8 else body[: noise.integers(1, len(body))])
        try:
            ingest(str(path), MemoryStore(), tmp_path / "cache")
        except DatasetError as error:
            told.append(str(error))
    assert told
    assert all(line.isprintable() and str(path) in line for line in told)
