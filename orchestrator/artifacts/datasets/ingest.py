"""Data sets: taken in once from wherever they are, kept in the store, read from a local cache.

A data set is the folder `datasets/<sha256>/` of the store: `images.npy`, (N, H, W, C) uint8, and
`manifest.json`, which is written last. The SHA-256 is that of the shape and the pixels, so the same
images from another place are the same data set.
"""

import fcntl
import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.arrays import BLOCK_BYTES, Block, ImageStream
from orchestrator.artifacts.datasets.refs import (
    FORMAT_VERSION,
    DatasetRef,
    find_known,
    manifest_key,
    not_in_store,
)
from orchestrator.artifacts.datasets.sources import open_source
from orchestrator.errors import ConditionFailedError, DatasetError, ObjectNotFoundError
from orchestrator.store.keys import dataset_folder
from orchestrator.store.objects import ObjectStore, open_store

_SHA256 = re.compile(r"[0-9a-f]{64}")


def ingest(
    source: str,
    store: ObjectStore,
    cache: Path,
    open_bucket: Callable[[str], ObjectStore] = open_store,
) -> DatasetRef:
    """Take a data set into the store, unless it is there, and into the local cache.

    Args:
        source: What `resolve_source` returned.
        store: Where it goes.
        cache: Folder of the local cache.
        open_bucket: Opens the s3:// URI of a source.

    Returns:
        The data set, with the source it was asked for by.

    Raises:
        DatasetError: The source cannot be used; the message names the file.
    """
    known = find_known(source, store)
    if known is not None:
        return known
    with _cache_usable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=cache, prefix="ingest-")
    with staging as name:
        path = Path(name) / "images.npy"
        with open_source(source, Path(name), open_bucket) as stream:
            _write_array(stream, path, cache)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        num_images, height, width, channels = images.shape
        sha256 = content_sha256(images)
        ref = DatasetRef(sha256, num_images, height, width, channels, source)
        _store_once(ref, path, store)
        _publish(path, _cached_path(cache, ref.sha256))
    return ref


def fetch(store: ObjectStore, sha256: str, cache: Path) -> Path:
    """Return the local .npy of a data set; one process of a machine fetches it, the others wait.

    Args:
        store: Where it is kept.
        sha256: Which one.
        cache: Folder of the local cache.

    Returns:
        Path of a whole and verified (N, H, W, C) uint8 array.

    Raises:
        DatasetError: The store does not hold it, or holds something else under its name.
    """
    if _SHA256.fullmatch(sha256) is None:
        raise DatasetError(f"{sha256!r} is not the SHA-256 of a data set")
    path = _cached_path(cache, sha256)
    with _cache_usable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{sha256}.lock"):
            if not _is_whole(path):
                _download(store, sha256, cache, path)
    return path


def content_sha256(images: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the shape and the pixels of (N, H, W, C) uint8 images."""
    digest = hashlib.sha256(f"uint8 {'x'.join(map(str, images.shape))}\n".encode())
    step = max(1, BLOCK_BYTES // math.prod(images.shape[1:]))
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]).data)
    return digest.hexdigest()


def _images_key(sha256: str) -> str:
    return f"{dataset_folder(sha256)}images.npy"


def _cached_path(cache: Path, sha256: str) -> Path:
    return cache / sha256 / "images.npy"


def _write_array(stream: ImageStream, path: Path, cache: Path) -> None:
    first: Block | None = None
    offset = num_images = 0
    with path.open("wb") as file:
        for block in stream.blocks:
            first = first or block
            if block.images.shape[1:] != first.images.shape[1:]:
                raise DatasetError(
                    f"{block.name} is {_size(block)} but {first.name} is {_size(first)}; "
                    "all images of a set must have the same size and channels"
                )
            with _cache_usable(cache):
                if block is first:
                    shape = (stream.num_images, *first.images.shape[1:])
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    offset = file.tell()
                file.seek(offset + block.start * first.images[0].nbytes)
                file.write(np.ascontiguousarray(block.images).data)
            num_images += len(block.images)
    if num_images != stream.num_images:
        raise DatasetError(f"{num_images} images came where {stream.num_images} were announced")


def _size(block: Block) -> str:
    height, width, channels = block.images.shape[1:]
    return f"{height} x {width} with {channels} channel{'s' if channels > 1 else ''}"


def _store_once(ref: DatasetRef, path: Path, store: ObjectStore) -> None:
    if store.exists(manifest_key(ref.sha256)):
        return
    store.put_file(_images_key(ref.sha256), path)
    manifest = {"format_version": FORMAT_VERSION, "size_bytes": path.stat().st_size, **asdict(ref)}
    try:
        body = json.dumps(manifest, indent=1).encode()
        store.put(manifest_key(ref.sha256), body, if_absent=True)
    except ConditionFailedError:
        return  # somebody stored the same images meanwhile


def _download(store: ObjectStore, sha256: str, cache: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as folder:
        copy = Path(folder) / "images.npy"
        try:
            store.get_file(_images_key(sha256), copy)
        except ObjectNotFoundError as error:
            raise DatasetError(not_in_store(store, sha256)) from error
        if not _is_whole(copy) or content_sha256(np.load(copy, mmap_mode="r")) != sha256:
            raise DatasetError(
                f"{store.uri}/{_images_key(sha256)} is damaged: its pixels have another SHA-256; "
                f"delete {dataset_folder(sha256)} there and submit the job again"
            )
        _publish(copy, path)


def _publish(whole: Path, path: Path) -> None:
    with _cache_usable(path.parent.parent):
        path.parent.mkdir(exist_ok=True)
        whole.replace(path)


def _is_whole(path: Path) -> bool:
    # A file gets its name when it has been verified; this finds one that a power cut shortened.
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(images.dtype == np.uint8 and images.ndim == 4)


@contextmanager
def _cache_usable(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"the local cache {cache} cannot be written: {error.strerror or error}"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel frees the lock when the process ends, however it ends.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
