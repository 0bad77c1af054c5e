"""A data set in the store: chunks of about 64 MiB, and a manifest (`manifest.py`) that names them.

* `datasets/chunks/<preparation>/<number>-<unique>.npy`: neighbouring images, (n, H, W, C).
* `datasets/<sha256>/manifest.json`, written last and only if absent: shape, type, range, the chunks
  in order with their SHA-256, statistics, what was left out, the versions of the decoders. Its name
  is the hash of the pixels, which does not depend on where they came from or how they are cut.

Sets of format 1 have one `images.npy` beside their manifest instead of chunks.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DatasetError, ObjectNotFoundError
from orchestrator.store.objects import ObjectStore

CHUNK_BYTES = 64 << 20
_BYTE_RANGE = (0.0, 255.0)
_PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Chunk:
    """Neighbouring images of a set in one object.

    Attributes:
        key: Where it lies.
        num_images: Its images.
        size_bytes: Of the object.
        sha256: Of the object.
    """

    key: str
    num_images: int
    size_bytes: int
    sha256: str


def encode_chunk(images: NDArray[Any]) -> bytes:
    """Return (n, H, W, C) images as the bytes of a .npy file."""
    head = io.BytesIO()
    little = np.ascontiguousarray(images, images.dtype.newbyteorder("<"))
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(little))
    return b"".join((head.getvalue(), little.data))  # the one copy there is


def chunk_body(store: ObjectStore, chunk: Chunk) -> bytes:
    """Return a chunk's object, proved by its hash. Raises: DatasetError."""
    where = f"{store.uri}/{chunk.key}"
    try:
        body = store.get(chunk.key).body
    except ObjectNotFoundError as error:
        raise DatasetError(f"{where} is missing; {_ADVICE}") from error
    if chunk.sha256 and hashlib.sha256(body).hexdigest() != chunk.sha256:
        raise DatasetError(f"{where} is damaged: it has another SHA-256; {_ADVICE}")
    return body


def read_chunk(store: ObjectStore, chunk: Chunk) -> NDArray[Any]:
    """Return the images of a chunk, proved by its hash.

    Raises:
        DatasetError: It is missing or damaged.
    """
    where, body = f"{store.uri}/{chunk.key}", chunk_body(store, chunk)
    try:
        images: NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DatasetError(f"{where} is damaged: {error}; {_ADVICE}") from error
    if images.ndim != 4 or len(images) != chunk.num_images:
        raise DatasetError(f"{where} is damaged: it holds {images.shape}; {_ADVICE}")
    return images


_ADVICE = "delete the data set by `ddpmctl datasets delete` and submit the job again"


class PixelHash:
    """The name of a set: the SHA-256 of its type, shape and pixels in order.

    Args:
        dtype: Of a value.
        shape: (N, H, W, C).
    """

    def __init__(self, dtype: str, shape: Sequence[int]) -> None:
        self._digest = hashlib.sha256(f"{dtype} {'x'.join(map(str, shape))}\n".encode())

    def update(self, images: NDArray[Any]) -> None:
        """Take the next images in."""
        little = np.ascontiguousarray(images, images.dtype.newbyteorder("<"))
        self._digest.update(little.data)

    def hexdigest(self, dtype: str, value_range: tuple[float, float]) -> str:
        """Return the name; a range other than that of bytes is part of it."""
        digest = self._digest.copy()
        if dtype != "uint8" or value_range != _BYTE_RANGE:
            digest.update(f"\nrange {value_range[0]!r} {value_range[1]!r}".encode())
        return digest.hexdigest()


def content_sha256(images: NDArray[np.uint8]) -> str:
    """Return the name of (N, H, W, C) uint8 images."""
    pixels = PixelHash("uint8", images.shape)
    for piece in pieces(images):
        pixels.update(piece)
    return pixels.hexdigest("uint8", _BYTE_RANGE)


def pieces(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array piece by piece, so that a mapped file needs no memory."""
    step = max(1, _PIECE_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        yield images[start : start + step]
