"""The cache of a node: data sets as files that training maps into memory, within a limit.

A set is fetched once for all processes of a machine, chunk by chunk and several at a time, each
proved by its hash. What was not used for longest makes room: sets, and chunks of those that do not
fit as a whole (`chunk_cache.py`), unless somebody holds a lease on them. Who has a set open keeps
it, since a file that is mapped stays until it is let go.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

from orchestrator.artifacts.datasets.chunks import Chunk, PixelHash, pieces, read_chunk
from orchestrator.artifacts.datasets.manifest import Manifest, read_manifest
from orchestrator.errors import DatasetError
from orchestrator.store.keys import dataset_folder
from orchestrator.store.objects import ObjectStore

LIMIT_VARIABLE = "DDPMCTL_DATASET_CACHE_GIB"
_GIB = 1 << 30
CHUNKS_SUFFIX = ".chunks"  # of the folder with the chunks of a set that does not fit as a whole
CHUNK_SUFFIX = ".npy"
_SHARE_OF_DISK = 0.8  # of what is free, together with what the cache holds already
_THREADS = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(store: ObjectStore, sha256: str, cache: Path, *, for_training: bool = False) -> Path:
    """Return the local .npy of a data set; one process of a machine fetches it, the others wait.

    Args:
        store: Where it is kept.
        sha256: Which one; of a set with labels, the images'.
        cache: Folder of the local cache.
        for_training: Whether the reader could do with a part of the set at a time instead.

    Returns:
        Path of a whole and verified (N, H, W, C) array.

    Raises:
        DatasetError: The store does not hold it, or holds something else under its name; or the
            cache may not grow so large.
    """
    if _SHA256.fullmatch(sha256) is None:
        raise DatasetError(f"{sha256!r} is not the SHA-256 of a data set")
    path = cache / sha256 / "images.npy"
    with cache_usable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{sha256}.lock"):
            if not _is_whole(path):
                manifest = read_manifest(store, sha256)
                _check_fits(manifest, cache, for_training=for_training)
                _download(store, manifest, cache, path)
            os.utime(path)
    return path


def fits(manifest: Manifest, cache: Path) -> bool:
    """Tell whether the cache may hold a whole set."""
    return manifest.size_bytes <= cache_limit(cache)


def cache_limit(cache: Path) -> int:
    """Return the bytes that data sets may take on this machine.

    Raises:
        DatasetError: The variable that sets the limit is no number.
    """
    setting = os.environ.get(LIMIT_VARIABLE)
    if setting is not None:
        try:
            return int(float(setting) * _GIB)
        except ValueError as error:
            raise DatasetError(
                f"{LIMIT_VARIABLE} must be a number of GiB, not {setting!r}"
            ) from error
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return int(_SHARE_OF_DISK * (shutil.disk_usage(existing).free + _size(cache)))


def make_room(cache: Path, size_bytes: int, spared: str = "") -> bool:
    """Remove sets and chunks that were not used for longest; tell whether there is room now."""
    limit = cache_limit(cache)
    held = [folder for folder in cache.glob("*/") if _SHA256.fullmatch(folder.name)]
    held += cache.glob(f"*{CHUNKS_SUFFIX}/*{CHUNK_SUFFIX}")
    sizes = {path: _size(path) for path in held}
    total = sum(sizes.values())
    for path in sorted(held, key=_used_at):
        if total + size_bytes <= limit:
            break
        if path.name != spared and _removed(path):
            total -= sizes[path]
    return total + size_bytes <= limit


def lease_of(path: Path) -> Path:
    """Return the file beside a chunk, whole or in part, that its readers hold a shared lock on."""
    return path.with_name(f"{path.name.partition('.')[0]}.lease")


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process just made room
        return 0.0


def _removed(path: Path) -> bool:
    """Remove a set, or a chunk that nobody holds a lease on; tell whether it is gone."""
    if path.suffix != CHUNK_SUFFIX:
        shutil.rmtree(path, ignore_errors=True)
        return True
    with lease_of(path).open("a") as lease:
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink(missing_ok=True)
        return True


def _size(folder: Path) -> int:
    total = 0
    for path in (folder, *folder.rglob("*")) if folder.exists() else ():
        with suppress(OSError):  # another process just made room
            total += path.stat().st_size if path.is_file() else 0
    return total


def _check_fits(manifest: Manifest, cache: Path, *, for_training: bool) -> None:
    if fits(manifest, cache):
        return
    remedy = (
        "or draw from a part of it at a time by dataset.shuffle: blocks"
        if for_training
        else "or make room on its disk: only a training can do with a part of the set at a time"
    )
    raise DatasetError(
        f"data set {manifest.ref.sha256[:12]} has {manifest.size_bytes >> 20:,} MiB but {cache} "
        f"may hold {cache_limit(cache) >> 20:,}: raise {LIMIT_VARIABLE} on the node, {remedy}"
    )


def _download(store: ObjectStore, manifest: Manifest, cache: Path, path: Path) -> None:
    make_room(cache, manifest.size_bytes, manifest.ref.sha256)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as folder:
        copy = Path(folder) / "images.npy"
        if manifest.chunks[0].sha256:
            _assemble(store, manifest, copy)
        else:
            _copy_array(store, manifest, copy)
        with cache_usable(cache):
            path.parent.mkdir(exist_ok=True)
            copy.replace(path)


def _assemble(store: ObjectStore, manifest: Manifest, path: Path) -> None:
    """Write the chunks of a set one behind the other, as one array."""
    ref = manifest.ref
    shape = (ref.num_images, ref.height, ref.width, ref.channels)
    whole = np.lib.format.open_memmap(path, "w+", np.dtype(ref.dtype), shape)
    starts = np.cumsum([0, *(chunk.num_images for chunk in manifest.chunks)])

    def copy(place: tuple[int, Chunk]) -> None:
        start, chunk = place
        whole[start : start + chunk.num_images] = read_chunk(store, chunk)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(copy, zip(starts.tolist(), manifest.chunks, strict=False)))
    whole.flush()


def _copy_array(store: ObjectStore, manifest: Manifest, path: Path) -> None:
    """Copy a set of format 1, whose only proof is its name."""
    ref, chunk = manifest.ref, manifest.chunks[0]
    store.get_file(chunk.key, path)
    if _is_whole(path):
        images = np.load(path, mmap_mode="r")
        pixels = PixelHash(str(images.dtype), images.shape)
        for piece in pieces(images):
            pixels.update(piece)
        if pixels.hexdigest(ref.dtype, ref.value_range) == ref.sha256:
            return
    raise DatasetError(
        f"{store.uri}/{chunk.key} is damaged: its pixels have another SHA-256; "
        f"delete {dataset_folder(ref.sha256)} there and submit the job again"
    )


def _is_whole(path: Path) -> bool:
    # A file gets its name when it has been verified; this finds one that a power cut shortened.
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(images.ndim == 4)


@contextmanager
def cache_usable(cache: Path) -> Iterator[None]:
    """Say of a cache that cannot be written which folder it is."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"the local cache {cache} cannot be written: {error.strerror or error}"
        ) from error
