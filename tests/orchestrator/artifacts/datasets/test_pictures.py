"""Pictures of every kind: what comes out is what a viewer shows, or a refusal that names it."""

import io
import struct
import zlib
from collections import Counter
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from orchestrator.artifacts.datasets.colours import PROFILE
from orchestrator.artifacts.datasets.fitting import fitted
from orchestrator.artifacts.datasets.pictures import (
    ANIMATION,
    decode_picture,
    is_picture,
)
from orchestrator.artifacts.datasets.quiet import quiet_decoders
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.errors import DatasetError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 5, 3), np.uint8)


def _pixels(data: bytes, notes: Counter[str] | None = None) -> np.ndarray[Any, Any]:
    with quiet_decoders():
        return fitted(decode_picture(data, "x", notes), Reading(), "x")


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_give_back_their_pixels(kind: str, options: dict[str, Any]) -> None:
    """The format is only a wrapping."""
    data = _saved(Image.fromarray(RGB), kind, **options)
    assert is_picture(data[:32])
    np.testing.assert_array_equal(_pixels(bytes(data)), RGB)


def test_jpeg_and_webp_agree_with_an_independent_decoder() -> None:
    """Lossy files have one right reading: that of the codec's own library."""
    image = Image.fromarray(RNG.integers(0, 256, (32, 24, 3), np.uint8)).resize((48, 64))
    jpeg = _saved(image, "JPEG", quality=90, subsampling=0)
    difference = _pixels(jpeg).astype(int) - imagecodecs.jpeg_decode(jpeg).astype(int)
    assert np.abs(difference).max() <= 1
    webp = _saved(image, "WEBP", quality=90)
    np.testing.assert_array_equal(_pixels(webp), imagecodecs.webp_decode(webp))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_of_exif_is_applied(orientation: int, kind: str) -> None:
    """A phone stores every photo lying on its side and says so in one number."""
    stored = Image.fromarray(RGB.repeat(8, axis=0).repeat(8, axis=1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _saved(stored, kind, exif=exif.tobytes(), **options)
    with Image.open(io.BytesIO(data)) as opened:
        plain = opened.copy() if kind != "TIFF" else stored
    plain.getexif()[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(plain))
    np.testing.assert_array_equal(_pixels(bytes(data)), shown)
    assert (_pixels(bytes(data)).shape[:2] == (48, 40)) == (orientation < 5)


def test_orientation_is_applied_to_sixteen_bits_too() -> None:
    """Another library reads those, and knows nothing of EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = _saved(Image.fromarray(RGB), "PNG", exif=exif.tobytes())
    chunk = plain[plain.index(b"eXIf") - 4 :]
    chunk = chunk[: 12 + struct.unpack(">I", chunk[:4])[0]]
    wide = RNG.integers(0, 1 << 16, (6, 5, 3), np.uint16)
    data = imagecodecs.png_encode(wide)
    data = data[:33] + chunk + data[33:]
    np.testing.assert_array_equal(_pixels(bytes(data)), np.rot90(wide, -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_keeps_all_its_bits(channels: int) -> None:
    """Medical slices and depth maps live in the low byte."""
    wide = RNG.integers(0, 1 << 16, (6, 5, channels), np.uint16)
    found = _pixels(bytes(imagecodecs.png_encode(wide if channels > 1 else wide[..., 0])))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, wide)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_tiff_of_science_keeps_type_and_channels(dtype: type[np.generic], channels: int) -> None:
    """Fields of a simulation have as many channels as it has quantities."""
    values = RNG.integers(0, 200, (6, 5, channels)).astype(dtype)
    file = io.BytesIO()
    stored = values if channels > 1 else values[..., 0]
    photometric = "rgb" if channels == 3 else "minisblack"
    planar = "contig" if channels > 1 else None
    tifffile.imwrite(file, stored, photometric=photometric, planarconfig=planar)
    found = _pixels(file.getvalue())
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("P", 3), ("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)]
)
def test_common_pixel_formats_become_plain_channels(mode: str, channels: int) -> None:
    """Folders of images from the web hold palettes and bitmaps."""
    assert _pixels(_saved(Image.new(mode, (4, 3)), "PNG")).shape == (3, 4, channels)


def test_palette_with_transparency_keeps_it() -> None:
    """Emoji are palettes with a transparent colour."""
    assert _pixels(_saved(Image.new("P", (4, 3)), "PNG", transparency=0))[0, 0, 3] == 0


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation_is_taken_and_noted(kind: str) -> None:
    """A film strip would be no image; that the rest is dropped must be said."""
    frames = [Image.new("RGB", (4, 3), (50 * n, 0, 0)) for n in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    notes = Counter[str]()
    assert _pixels(data, notes).max() == 0
    assert notes == {ANIMATION: 1}


def _p3_profile() -> bytes:
    """Return the profile of a space like sRGB whose red and green are swapped."""
    body = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = body.index(b"rXYZ"), body.index(b"gXYZ")
    body[red : red + 4], body[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(body)


def test_profile_of_another_space_is_converted() -> None:
    """Numbers of another space, read as sRGB, are other colours."""
    reds = Image.new("RGB", (4, 3), (255, 0, 0))
    found = _pixels(_saved(reds, "PNG", icc_profile=_p3_profile()))
    assert found[0, 0, 1] > 250
    assert found[0, 0, 0] < 5


def test_profile_of_srgb_changes_no_bit() -> None:
    """Most files carry it, and sets of theirs keep their hash."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = _saved(Image.fromarray(RGB), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(_pixels(bytes(data)), RGB)


def test_unusable_profile_is_noted() -> None:
    """Browsers take it for sRGB, too; but nobody shall wonder."""
    notes = Counter[str]()
    data = _saved(Image.fromarray(RGB), "JPEG", icc_profile=b"nonsense" * 20)
    assert _pixels(data, notes).shape == RGB.shape
    assert notes == {PROFILE: 1}


def test_cmyk_without_a_profile_is_refused() -> None:
    """Nobody can say what its colours are; most readers invert them."""
    data = _saved(Image.new("CMYK", (4, 3), (0, 255, 0, 0)), "JPEG")
    with pytest.raises(DatasetError, match="x is CMYK without a colour profile"):
        _pixels(bytes(data))


def test_damaged_files_of_all_kinds_end_in_our_error() -> None:
    """A crawl of the web holds every kind of damage; a traceback names no file."""
    image = Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = _saved(image, kind)
        for seed in range(40):
            rng = np.random.default_rng(seed)
            data = bytearray(whole[: int(rng.integers(1, len(whole) + 1))])
            for position in rng.integers(0, len(data), 5):
                data[position] = int(rng.integers(0, 256))
            problem = _problem(bytes(data))
            assert "\n" not in problem
            assert problem == "" or problem.startswith("x ")


def _problem(data: bytes) -> str:
    try:
        _pixels(bytes(data))
    except DatasetError as error:
        return str(error)
    return ""


def test_bomb_is_refused_before_it_is_unpacked() -> None:
    """A few kilobytes can claim gigabytes of pixels."""
    header = struct.pack(">IIBBBBB", 1 << 14, 1 << 14, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    with pytest.raises(DatasetError, match=r"pixels.*dataset\.image_size"):
        _pixels(bytes(data))


def test_text_and_camera_raw_are_no_pictures() -> None:
    """What isn't read must not be taken for what is."""
    assert not is_picture(b"BMW is a car maker, not a bitmap of yours")
    assert not is_picture(b"RIFF0000WAVE")
    assert not is_picture(b"")
