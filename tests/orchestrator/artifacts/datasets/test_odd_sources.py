"""Sources that look like something else: read as what they mean, or one line says why not."""

import gzip
import io
import logging
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from webdataset.autodecode import Decoder, imagehandler
from webdataset.tariterators import group_by_keys, tar_file_expander

from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.pictures import WIDE_PROFILE, decode_picture
from orchestrator.artifacts.datasets.quiet import quiet_decoders
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import DatasetError
from tests.support.fakes import MemoryStore

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 65536, (5, 6), np.uint16)


def _taken(source: Path, tmp_path: Path, reading: Reading | None = None) -> NDArray[Any]:
    """Return the images that a source gives."""
    store = MemoryStore()
    ref = ingest(str(source), store, tmp_path / "cache", reading=reading)
    return np.load(fetch(store, ref.sha256, tmp_path / "node"))  # type: ignore[no-any-return]


def _tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    packed = io.BytesIO()
    tifffile.imwrite(packed, pixels, **options)
    return packed.getvalue()


def test_sixteen_bits_with_white_as_zero_are_turned_round() -> None:
    """Scanners and radiology write them; as stored they are negatives."""
    found = decode_picture(_tiff(GREY16, photometric="miniswhite"), "x.tif")
    np.testing.assert_array_equal(np.asarray(found)[..., 0], 65535 - GREY16)


def test_eight_and_sixteen_bits_with_white_as_zero_look_alike() -> None:
    """Pillow turns bytes round by itself: an independent reader."""
    grey = (GREY16 >> 8).astype(np.uint8)
    narrow = np.asarray(decode_picture(_tiff(grey, photometric="miniswhite"), "x.tif"))
    wide = decode_picture(_tiff(grey.astype(np.uint16) * 257, photometric="miniswhite"), "x.tif")
    np.testing.assert_array_equal(np.asarray(wide)[..., 0], narrow.astype(np.uint16) * 257)


def test_pages_of_a_stack_with_white_as_zero_are_turned_round(tmp_path: Path) -> None:
    """A stack is read by another way than a single picture."""
    stack = IMAGES[..., 0]
    (tmp_path / "x.tif").write_bytes(_tiff(stack, photometric="miniswhite"))
    np.testing.assert_array_equal(_taken(tmp_path / "x.tif", tmp_path)[..., 0], 255 - stack)


def test_orientation_of_a_wide_tiff_is_applied() -> None:
    """As it is to one of bytes."""
    data = _tiff(GREY16, photometric="minisblack", extratags=[(274, "H", 1, 6, True)])
    found = decode_picture(data, "x.tif")
    np.testing.assert_array_equal(np.asarray(found)[..., 0], np.rot90(GREY16, -1))


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.full((4, 4), -3, np.int8), {"photometric": "minisblack"}),
        (np.zeros((4, 4, 4), np.uint16), {"photometric": "separated", "planarconfig": "contig"}),
        (np.zeros((4, 4, 3), np.uint16), {"photometric": "cielab"}),
        (np.zeros((4, 4), np.uint32), {"photometric": "minisblack"}),
        (np.zeros((4, 4), np.float64), {"photometric": "minisblack"}),
        (np.zeros((4, 4), np.float32), {"photometric": "miniswhite"}),
    ],
)
def test_tiff_that_would_be_misread_is_refused(
    pixels: NDArray[Any], options: dict[str, Any]
) -> None:
    """Signed bytes came as unsigned ones, CMYK of 16 bits as RGB with alpha."""
    with pytest.raises(DatasetError, match=r"^x\.tif holds \w+ values"):
        decode_picture(_tiff(pixels, **options), "x.tif")


def test_palette_of_a_stack_is_no_grey(tmp_path: Path) -> None:
    """Its numbers are places in a table of colours."""
    table = np.zeros((3, 256), np.uint16)
    (tmp_path / "x.tif").write_bytes(_tiff(IMAGES[..., 0], photometric="palette", colormap=table))
    with pytest.raises(DatasetError, match="mean PALETTE"):
        _taken(tmp_path / "x.tif", tmp_path)


def test_profile_that_is_not_applied_is_noted() -> None:
    """Wide pictures are taken as they are, and nobody should think their colours were converted."""
    from collections import Counter

    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    notes: Counter[str] = Counter()
    decode_picture(_tiff(GREY16, photometric="minisblack", iccprofile=profile), "x.tif", notes)
    assert notes[WIDE_PROFILE] == 1


def test_decoders_are_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Pillow logged `More samples per pixel than can be decoded` between our lines."""
    data = _tiff(np.zeros((4, 4, 12), np.uint8), photometric="minisblack", planarconfig="contig")
    with quiet_decoders():
        assert np.asarray(decode_picture(data, "x.tif")).shape == (4, 4, 12)
    assert caplog.text == ""
    assert logging.getLogger("PIL").level == logging.NOTSET


def _parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"img": [b"x"]}, r"b\.parquet has no column image of binary as the first file has"),
        ({"image": ["text"]}, r"b\.parquet has no column image of binary"),
    ],
)
def test_table_of_other_columns_is_named(other: dict[str, Any], told: str, tmp_path: Path) -> None:
    """The second file of a folder ended in a stack of calls."""
    _parquet(tmp_path / "a.parquet", image=[encode_png(IMAGES[0])])
    _parquet(tmp_path / "b.parquet", **other)
    with pytest.raises(DatasetError, match=told):
        _taken(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([], pa.binary()), "has no rows"),
        (pa.array([None], pa.binary()), r"x\.parquet: row 0 holds no bytes"),
    ],
)
def test_table_without_images_says_so(column: pa.Array, told: str, tmp_path: Path) -> None:
    """`0 of 0 images cannot be read` is no help."""
    _parquet(tmp_path / "x.parquet", image=column)
    with pytest.raises(DatasetError, match=told):
        _taken(tmp_path / "x.parquet", tmp_path)


def _gz(folder: Path) -> Path:
    (folder / "x.png.gz").write_bytes(gzip.compress(encode_png(IMAGES[0])))
    return folder / "x.png.gz"


def _empty_zip(folder: Path) -> Path:
    zipfile.ZipFile(folder / "x.zip", "w").close()
    return folder / "x.zip"


def _one_image(folder: Path) -> Path:
    np.save(folder / "x.npy", np.zeros((64, 64, 3), np.uint8))
    return folder / "x.npy"


def _zip_in_zip(folder: Path) -> Path:
    inner = _empty_zip(folder).rename(folder / "inner.zip")
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.write(inner, inner.name)
    return folder / "x.zip"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_gz, r"x\.png\.gz is one packed file, no tar; unpack it first"),
        (_empty_zip, r"x\.zip holds no PNG, .* it holds: nothing"),
        (_one_image, "one image of 3 channels, or 64 of 64 x 3"),
        (_zip_in_zip, r"give one of its files itself, such as inner\.zip"),
    ],
)
def test_what_is_no_set_says_what_it_is(
    make: Callable[[Path], Path], told: str, tmp_path: Path
) -> None:
    """`truncated header`, or 64 grey images made of one photo, were no help."""
    with pytest.raises(DatasetError, match=told):
        _taken(make(tmp_path), tmp_path)


def test_one_picture_smaller_than_a_batch_is_a_set(tmp_path: Path) -> None:
    """The smallest set there is; 1 x 1 pixels too."""
    (tmp_path / "x.png").write_bytes(encode_png(IMAGES[0][:1, :1]))
    np.testing.assert_array_equal(_taken(tmp_path / "x.png", tmp_path), IMAGES[:1, :1, :1])


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
def test_thinnest_pictures_get_the_wanted_size(
    fit: Any, size: tuple[int, int], tmp_path: Path
) -> None:
    """An inner size that rounds to nothing would end in Pillow's error."""
    (tmp_path / "x.png").write_bytes(encode_png(np.full((*size, 3), 200, np.uint8)))
    found = _taken(tmp_path / "x.png", tmp_path, Reading(image_size=(16, 16), fit=fit))
    assert found.shape == (1, 16, 16, 3)


def test_shards_are_read_as_webdataset_reads_them(tmp_path: Path) -> None:
    """An independent reader sees the same pixels under the same keys."""
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for index in range(3 * shard, 3 * shard + 3):
                body = encode_png(IMAGES[index])
                member = tarfile.TarInfo(f"{index:04d}.png")
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
    theirs = []
    for shard in range(2):
        with (tmp_path / f"{shard}.tar").open("rb") as stream:
            files = tar_file_expander([{"url": "x", "stream": stream}])
            theirs += [
                Decoder([imagehandler("rgb8")])(sample)["png"] for sample in group_by_keys(files)
            ]
    np.testing.assert_array_equal(_taken(tmp_path, tmp_path), np.stack(theirs))


def test_table_is_read_as_pyarrow_and_pillow_read_it(tmp_path: Path) -> None:
    """Over the borders of row groups and files."""
    for part in range(2):
        images = [
            {"bytes": encode_png(i), "path": "x.png"} for i in IMAGES[3 * part : 3 * part + 3]
        ]
        table = pa.table({"image": images, "caption": ["x"] * 3})
        pq.write_table(table, tmp_path / f"train-{part:05d}-of-00002.parquet", row_group_size=2)
    rows = pq.read_table(tmp_path).column("image").to_pylist()
    theirs = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows]
    np.testing.assert_array_equal(_taken(tmp_path, tmp_path), np.stack(theirs))
