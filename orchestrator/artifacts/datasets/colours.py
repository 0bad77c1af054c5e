"""Colours of other spaces brought to sRGB, as a viewer shows them."""

import functools
import hashlib
import io
from collections import Counter

import numpy as np
from PIL import Image, ImageCms

from orchestrator.errors import DatasetError

PROFILE = "unusable colour profile taken for sRGB"
_NEARLY_EQUAL = 2  # of 255: a profile that moves no colour further than this is that of sRGB


def from_cmyk(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Return a CMYK image in sRGB, by its profile. Raises: DatasetError."""
    if not profile:
        raise DatasetError(
            f"{name} is CMYK without a colour profile, so nobody can say what its colours are; "
            "convert it to RGB first"
        )
    try:
        converted = ImageCms.profileToProfile(
            image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise DatasetError(
            f"{name} is CMYK with a colour profile that cannot be used; convert it to RGB first"
        ) from error
    if converted is None:
        raise DatasetError(f"{name} is CMYK and cannot be converted; convert it to RGB first")
    return converted


def in_srgb(image: Image.Image, profile: bytes, notes: Counter[str]) -> Image.Image:
    """Return an 8-bit image with its colours in sRGB; alpha stays as it is."""
    space = "L" if image.mode in ("L", "LA") else "RGB"
    key = hashlib.sha256(profile).digest()
    try:
        transform = _transform(key, profile, space)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes[PROFILE] += 1
        return image
    if transform is None:
        return image
    colours = image.convert(space) if image.mode != space else image
    moved = ImageCms.applyTransform(colours, transform)
    if moved is None:
        return image
    if space == "L":
        moved = moved.getchannel(0)
    if image.mode in ("LA", "RGBA"):
        moved.putalpha(image.getchannel("A"))
    return moved


@functools.lru_cache(maxsize=64)
def _transform(_key: bytes, profile: bytes, space: str) -> "ImageCms.ImageCmsTransform | None":
    """Return what brings a profile's colours to sRGB; None for a profile that is that of sRGB."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        space,
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    probe = _probe(space)
    moved = ImageCms.applyTransform(probe, transform)
    if moved is None:
        return transform
    before = np.asarray(probe.convert("RGB")).astype(int)
    is_srgb = int(np.abs(np.asarray(moved).astype(int) - before).max()) <= _NEARLY_EQUAL
    return None if is_srgb else transform


def _probe(space: str) -> Image.Image:
    """Return an image with colours from all over the space."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    if space == "L":
        return Image.fromarray(levels[np.newaxis])
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    return Image.fromarray(np.ascontiguousarray(cube))
