"""The bytes of a shard: images packed into one object, and unpacked with proof of what they are."""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.images import decode_png, encode_png
from orchestrator.artifacts.samples.commits import Format, ShardCommit
from orchestrator.errors import DatasetError, ShardDamagedError

_SUFFIXES: Mapping[str, str] = {"webdataset": "tar", "npy": "npy"}
_LABEL_SUFFIX = ".cls"
Pixels = NDArray[np.uint8]


def suffix_of(shard_format: Format) -> str:
    """Return the ending of a shard's file name."""
    return _SUFFIXES[shard_format]


def hash_bytes(body: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(body).hexdigest()


def encode_array(array: Pixels) -> bytes:
    """Return an array as the bytes of an .npy file."""
    packed = io.BytesIO()
    np.save(packed, np.ascontiguousarray(array), allow_pickle=False)
    return packed.getvalue()


def hash_pixels(pixels: Pixels) -> str:
    """Return the SHA-256 of uint8 NHWC pixels in index order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def encode_shard(
    pixels: Pixels,
    start: int,
    shard_format: Format,
    labels: NDArray[np.int64] | None = None,
) -> bytes:
    """Pack the images of a shard; equal images give equal bytes.

    Args:
        pixels: (N, H, W, C) uint8 with 1 to 4 channels.
        start: Index of the first image.
        shard_format: "webdataset" is a tar of PNGs named by index, "npy" one array.
        labels: (N,) int64, which a tar holds beside each PNG as `.cls`; None for none.
    """
    if shard_format == "npy":
        return encode_array(pixels)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for offset, image in enumerate(pixels):
            name = _image_name(start + offset)
            _add(tar, name, encode_png(image))
            if labels is not None:
                _add(tar, _label_name(name), str(int(labels[offset])).encode())
    return packed.getvalue()


def _add(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(body)
    tar.addfile(member, io.BytesIO(body))


def decode_shard(body: bytes, commit: ShardCommit) -> Pixels:
    """Unpack the images of a shard and prove that they are the committed ones.

    Returns:
        (N, H, W, C) uint8 in index order.

    Raises:
        ShardDamagedError: Bytes, names, number, order, shape or pixels are not as committed.
    """
    where = f"shard {commit.index} ({commit.data_key})"
    if len(body) != commit.size_bytes:
        raise ShardDamagedError(f"{where} has {len(body)} bytes instead of {commit.size_bytes}")
    if hash_bytes(body) != commit.sha256:
        raise ShardDamagedError(f"{where} is damaged: its SHA-256 is not the committed one")
    try:
        pixels = np.load(io.BytesIO(body)) if commit.format == "npy" else _untar(body, commit)
    except (DatasetError, tarfile.TarError, ValueError, EOFError) as error:
        raise ShardDamagedError(f"{where} cannot be decoded: {error}") from error
    expected = (commit.stop - commit.start, *commit.image_shape)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise ShardDamagedError(f"{where} holds {pixels.shape} {pixels.dtype}, not {expected}")
    if hash_pixels(pixels) != commit.pixel_sha256:
        raise ShardDamagedError(f"{where} has other pixels than were committed")
    return pixels


def _untar(body: bytes, commit: ShardCommit) -> Pixels:
    images, labels = [], []
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as tar:
        for member, wanted in zip(tar, _member_names(commit), strict=False):
            stream = tar.extractfile(member)
            if member.name != wanted or stream is None:
                raise ShardDamagedError(
                    f"shard {commit.index} has {member.name} where {wanted} belongs"
                )
            if wanted.endswith(_LABEL_SUFFIX):
                labels.append(int(stream.read()))
            else:
                images.append(decode_png(stream.read(), member.name))
    if commit.labels_sha256 and hash_labels(labels) != commit.labels_sha256:
        raise ShardDamagedError(f"shard {commit.index} has other labels than were committed")
    return np.stack(images)


def _member_names(commit: ShardCommit) -> Iterator[str]:
    """Yield the names that a tar's members must have, without an end: surplus shows by number."""
    for index in itertools.count(commit.start):
        yield _image_name(index)
        if commit.labels_sha256:
            yield _label_name(_image_name(index))


def hash_labels(labels: Sequence[int]) -> str:
    """Return the SHA-256 of labels in the order of the images."""
    return hash_bytes(json.dumps(list(labels)).encode())


def _label_name(image_name: str) -> str:
    return f"{image_name.removesuffix('.png')}{_LABEL_SUFFIX}"


def _image_name(index: int) -> str:
    return f"{index:09d}.png"
