"""Arrays that hold one image each, as science keeps them: a folder of slices, one .npy a slice."""

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.arrays import (
    MAX_CHANNELS,
    NPY_MAGIC,
    ZIP_MAGIC,
    check_dtype,
    choose_images,
    npz_arrays,
    read_header,
)
from orchestrator.artifacts.datasets.entries import MAX_FILE_BYTES
from orchestrator.artifacts.datasets.unpacking import damage_translated
from orchestrator.errors import DatasetError

_FEW_CHANNELS = 4


def is_array_picture(data: bytes) -> bool:
    """Tell by its first bytes whether what should be a picture is an array."""
    return data.startswith((NPY_MAGIC, ZIP_MAGIC))


def is_one_image(shape: Sequence[int], name: str) -> bool:
    """Tell whether an array of a folder is one image, (H, W) or (H, W, C), or several.

    Raises:
        DatasetError: Nobody can say, or it is neither.
    """
    if len(shape) == 2:
        return True
    if len(shape) == 4:
        return False
    if len(shape) != 3:
        raise DatasetError(
            f"{name} has the shape {tuple(shape)}; an image is (H, W) or (H, W, C), and several "
            "are (N, H, W, C)"
        )
    height, width, channels = shape
    if channels <= _FEW_CHANNELS or (channels <= MAX_CHANNELS and channels < min(height, width)):
        return True
    if channels > MAX_CHANNELS and height > _FEW_CHANNELS:
        return False
    raise DatasetError(
        f"{name} has the shape {tuple(shape)}: one image, or {height} of {width} x {channels}? "
        "Save one as (H, W, C) with fewer channels than pixels an edge, and several as (N, H, W, C)"
    )


def decode_array(data: bytes, name: str) -> NDArray[Any]:
    """Return the image, (H, W, C), that a .npy or a .npz holds.

    Raises:
        DatasetError: It is damaged, or holds something else than one image.
    """
    with damage_translated(name):
        if data.startswith(ZIP_MAGIC):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                member = f"{choose_images(npz_arrays(archive, name), name)}.npy"
                if archive.getinfo(member).file_size > MAX_FILE_BYTES:
                    raise DatasetError(f"{name} holds more than {MAX_FILE_BYTES} bytes")
                data = archive.read(member)
        file = io.BytesIO(data)
        header = read_header(file, name)
        if not is_one_image(header.shape, name):
            raise DatasetError(f"{name} holds {header.shape[0]} images, and other files one each")
        check_dtype(header.dtype, name)
        pixels = np.frombuffer(data[header.first_byte :], header.dtype).reshape(header.shape)
    pixels = pixels.astype(header.dtype.newbyteorder("="), copy=False)
    if not pixels.size:
        raise DatasetError(f"{name} has the shape {header.shape}, so it holds no image")
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
