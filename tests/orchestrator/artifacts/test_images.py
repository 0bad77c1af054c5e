"""PNGs, grids and film strips."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from orchestrator.artifacts.images import (
    MAX_PIXELS,
    decode_png,
    encode_png,
    film_strip,
    image_grid,
)
from orchestrator.errors import DatasetError

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))


def _png_header(width: int, height: int) -> bytes:
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT" + zlib.compress(b"\0"),
        b"IEND",
    ]
    framed = [struct.pack(">I", len(c) - 4) + c + zlib.crc32(c).to_bytes(4) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@settings(deadline=None)
@given(st_numpy.arrays(np.uint8, SHAPES))
def test_png_gives_back_the_same_pixels(image: np.ndarray) -> None:
    """A sample set's hash is over decoded pixels, so a PNG must not change one of them."""
    np.testing.assert_array_equal(decode_png(encode_png(image)), image)


def test_encode_accepts_a_view_that_is_not_contiguous() -> None:
    """Images are slices of larger arrays and transposed ones."""
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5).transpose(2, 1, 0)
    np.testing.assert_array_equal(decode_png(encode_png(image)), image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 5), np.uint8), np.zeros((2, 2, 1), np.float32)],
)
def test_encode_refuses_what_is_no_image(image: np.ndarray) -> None:
    """A float image would be cut to its lowest byte without a word."""
    with pytest.raises(DatasetError, match="uint8 with 1 to 4 channels"):
        encode_png(image)


@pytest.mark.parametrize("keep", [0, 7, 30, 60, -1, -13, -20])
def test_cut_off_png_is_an_error_that_names_it(keep: int) -> None:
    """Half an image must not be taken for a whole one."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    with pytest.raises(DatasetError, match=r"^a\.png is "):
        decode_png(encode_png(noise)[:keep], "a.png")


def test_flipped_bit_in_a_png_is_an_error() -> None:
    """Damage in the store must not reach an exported set."""
    data = bytearray(encode_png(np.zeros((16, 16, 1), np.uint8)))
    data[len(data) // 2] ^= 1
    with pytest.raises(DatasetError, match="damaged"):
        decode_png(bytes(data))


@pytest.mark.parametrize("edge", [5000, 12_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(edge: int) -> None:
    """A file of a few bytes must not take gigabytes; Pillow's own limits lie in between."""
    assert edge**2 > MAX_PIXELS
    with pytest.raises(DatasetError, match="pixels"):
        decode_png(_png_header(edge, edge), "bomb.png")


def test_jpeg_is_no_sample() -> None:
    """Samples are lossless; a JPEG among them is damage."""
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, format="JPEG")
    with pytest.raises(DatasetError, match="not a readable PNG"):
        decode_png(file.getvalue())


def test_grid_holds_every_image_enlarged_in_reading_order() -> None:
    """Tiny digits must be readable in the MLflow page."""
    images = np.arange(6, dtype=np.uint8).repeat(8 * 8 * 3).reshape(6, 8, 8, 3)
    grid = decode_png(image_grid(images, columns=3))
    assert grid.shape == (2 + 2 * 50, 2 + 3 * 50, 3)
    np.testing.assert_array_equal(grid[25::50, 25::50, 0], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("num_images", [1, 2, 5, 64])
def test_grid_is_about_square_and_fills_up_with_white(num_images: int) -> None:
    """Any number of images can be shown."""
    images = np.zeros((num_images, 4, 4, 1), np.uint8)
    grid = decode_png(image_grid(images, scale=1))
    side = int(np.ceil(np.sqrt(num_images)))
    assert grid.shape[1] == 2 + side * 6
    assert (grid == 0).sum() == num_images * 16


def test_film_strip_has_a_row_for_each_image() -> None:
    """Time runs from left to right."""
    frames = np.arange(6, dtype=np.uint8).repeat(48 * 48).reshape(2, 3, 48, 48, 1)
    strip = decode_png(film_strip(frames))
    np.testing.assert_array_equal(strip[25::50, 25::50, 0], [[0, 1, 2], [3, 4, 5]])
