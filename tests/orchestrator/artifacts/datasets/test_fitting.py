"""Scaling and converting: close to an ideal low-pass in float64, and never a guess about alpha."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn, idctn

from orchestrator.artifacts.datasets.fitting import fitted
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.errors import DatasetError

RNG = np.random.default_rng(1)


def _natural(size: int) -> np.ndarray[Any, Any]:
    """Return (size, size) float64 with the spectrum of photographs."""
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    radius[0, 0] = 1 / size
    noise = np.fft.ifft2(np.fft.fft2(RNG.standard_normal((size, size))) / radius).real
    image: np.ndarray[Any, Any] = np.clip(128 + 50 * (noise - noise.mean()) / noise.std(), 0, 255)
    return image.round()


def _ideal(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return what an ideal low-pass leaves, in float64."""
    coefficients = dctn(image, norm="ortho")[:size, :size]
    small: np.ndarray[Any, Any] = idctn(coefficients, norm="ortho") * (size / len(image))
    return small


def _adm(image: Image.Image, size: int) -> Image.Image:
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return image.resize((size, size), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("size", "target"), [(500, 64), (375, 256), (130, 64)])
def test_scaling_is_closer_to_the_ideal_than_box_and_bicubic(size: int, target: int) -> None:
    """The filter was chosen by this measure."""
    values = _natural(size)
    image, ideal = Image.fromarray(values.astype(np.uint8)), _ideal(values, target)
    ours = fitted(image, Reading(image_size=(target, target)), "x")[..., 0].astype(float)
    theirs = np.asarray(_adm(image, target)).astype(float)
    assert np.sqrt(np.mean((ours - ideal) ** 2)) < 0.85 * np.sqrt(np.mean((theirs - ideal) ** 2))


def test_what_the_new_size_cannot_show_does_not_come_back_as_a_pattern() -> None:
    """Aliasing would teach the model stripes that no photo has."""
    wave = 127.5 + 127 * np.cos(2 * np.pi * 100 * (np.arange(500) + 0.5) / 500)
    image = Image.fromarray(np.round(wave)[np.newaxis].repeat(500, 0).astype(np.uint8))
    small = fitted(image, Reading(image_size=(64, 64)), "x")
    assert small[8:-8, 8:-8].std() < 1.0


def test_image_of_the_wanted_size_is_left_alone() -> None:
    """No filter is exact at scale one."""
    pixels = RNG.integers(0, 256, (8, 6, 3), np.uint8)
    reading = Reading(image_size=(8, 6))
    np.testing.assert_array_equal(fitted(Image.fromarray(pixels), reading, "x"), pixels)


def test_crop_takes_the_middle_pad_keeps_all_and_stretch_distorts() -> None:
    """The three answers to another shape."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20, 0], wide[:, 20:40, 1], wide[:, 40:, 2] = 255, 255, 255
    image = Image.fromarray(wide)
    crop = fitted(image, Reading(image_size=(10, 10)), "x")
    assert crop[5, 5].tolist() == [0, 255, 0]
    assert crop[..., 1].min() > 200
    padded = fitted(image, Reading(image_size=(12, 12), fit="pad", background=(9, 9, 9)), "x")
    assert padded[0, 0].tolist() == [9, 9, 9]
    assert padded[6, 1, 0] > 250
    stretched = fitted(image, Reading(image_size=(12, 12), fit="stretch"), "x")
    assert stretched[6, [1, 6, 10]].argmax(axis=1).tolist() == [0, 1, 2]
    assert stretched[0, 1, 0] > 200


def test_transparency_is_laid_on_the_background() -> None:
    """What a viewer shows depends on what is below."""
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    laid = fitted(clear, Reading(channels="rgb", background=(1, 2, 3)), "x")
    assert laid[0, 0].tolist() == [1, 2, 3]
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    assert fitted(half, Reading(channels="rgb", background=(0, 0, 0)), "x")[0, 0, 0] in (100, 101)
    assert fitted(clear, Reading(channels="grey"), "x").shape == (4, 4, 1)
    assert fitted(Image.new("L", (4, 4), 7), Reading(channels="rgba"), "x")[0, 0].tolist() == [
        7,
        7,
        7,
        255,
    ]


def test_colour_of_clear_pixels_does_not_bleed_in_when_scaled() -> None:
    """Editors leave any colour below what is clear."""
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, :20] = (0, 0, 255, 0)
    pixels[:, 20:] = (255, 0, 0, 255)
    small = fitted(Image.fromarray(pixels), Reading(image_size=(9, 9)), "x")
    opaque = small[small[..., 3] > 30]
    assert opaque[:, 2].max() <= 8


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_arrays_of_other_types_are_scaled_in_their_own(dtype: type[np.generic]) -> None:
    """Sixteen bits must not go through eight."""
    values = np.linspace(0, 30000, 40 * 40 * 5).reshape(40, 40, 5).astype(dtype)
    small = fitted(values, Reading(image_size=(10, 10)), "x")
    assert (small.shape, small.dtype) == ((10, 10, 5), np.dtype(dtype))
    middle = values.reshape(10, 4, 10, 4, 5).astype(float).mean(axis=(1, 3))
    assert np.abs(small[2:-2, 2:-2] - middle[2:-2, 2:-2]).max() < 40


def test_array_with_many_channels_becomes_no_photo() -> None:
    """Which three of twelve are red, green and blue?"""
    with pytest.raises(DatasetError, match="12 channels"):
        fitted(np.zeros((4, 4, 12), np.float32), Reading(channels="rgb"), "x")


def test_wide_array_with_alpha_is_laid_on_the_background() -> None:
    """Sixteen bits of alpha count as eight do."""
    clear = np.zeros((2, 2, 4), np.uint16)
    laid = fitted(clear, Reading(channels="rgb", background=(255, 0, 0)), "x")
    assert laid[0, 0].tolist() == [65535, 0, 0]
