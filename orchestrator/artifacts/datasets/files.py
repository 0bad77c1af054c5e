"""Images out of many files: a folder, a folder in a store, or a tar of PNG and JPEG files."""

import itertools
import os
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from orchestrator.artifacts.datasets.arrays import Block, ImageStream, damage_translated
from orchestrator.artifacts.images import decode_image
from orchestrator.errors import DatasetError
from orchestrator.store.objects import ObjectStore

MAX_FILE_BYTES = 256 << 20
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_TAR_BLOCK_BYTES = 512
_STORE_THREADS = 8
_STORE_WINDOW = 64


def is_image_name(name: str) -> bool:
    """Tell whether a path is read as an image: .png, .jpg or .jpeg, and nothing hidden."""
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(".") and part != ".." for part in path.parts)
    return path.suffix.lower() in _SUFFIXES and not is_hidden


def open_folder(folder: Path) -> ImageStream:
    """Read the PNG and JPEG files of a folder and its subfolders, sorted by relative path.

    Raises:
        DatasetError: There are none.
    """
    found = (
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, files in os.walk(folder)
        for name in files
    )
    names = sorted(filter(is_image_name, found))
    _check_not_empty(names, str(folder))
    return ImageStream(len(names), _folder_blocks(folder, names))


def _folder_blocks(folder: Path, names: list[str]) -> Iterator[Block]:
    for index, name in enumerate(names):
        path = folder / name
        with damage_translated(str(path)):
            data = path.read_bytes()
        yield _block(index, data, str(path))


def open_store_folder(store: ObjectStore) -> ImageStream:
    """Read the PNG and JPEG objects below a store's prefix, sorted by key.

    Raises:
        DatasetError: There are none.
    """
    infos = [info for info in store.list_objects("") if is_image_name(info.key)]
    for info in infos:
        _check_file_size(info.size_bytes, f"{store.uri}/{info.key}")
    keys = [info.key for info in infos]
    _check_not_empty(keys, store.uri)
    return ImageStream(len(keys), _store_blocks(store, keys))


def _store_blocks(store: ObjectStore, keys: list[str]) -> Iterator[Block]:
    with ThreadPoolExecutor(_STORE_THREADS) as pool:
        for start in range(0, len(keys), _STORE_WINDOW):
            window = keys[start : start + _STORE_WINDOW]
            for offset, stored in enumerate(pool.map(store.get, window)):
                yield _block(start + offset, stored.body, f"{store.uri}/{stored.key}")


@contextmanager
def open_tar(path: Path, name: str) -> Iterator[ImageStream]:
    """Read the PNG and JPEG members of a tar (packed or not), sorted by name; nothing is extracted.

    Args:
        path: The archive.
        name: What messages call it.

    Raises:
        DatasetError: It is damaged, or holds links, devices or no images.
    """
    with damage_translated(name):
        with tarfile.open(path) as archive:
            names = [member.name for member in _image_members(archive, name)]
        _check_not_empty(names, name)
        ranks = {member: rank for rank, member in enumerate(sorted(names))}
        if len(ranks) < len(names):
            twice = next(a for a, b in itertools.pairwise(sorted(names)) if a == b)
            raise DatasetError(f"{name} holds {twice} twice")
        # The archive is read in its own order: going back in a packed one starts it over.
        with tarfile.open(path) as archive:
            yield ImageStream(len(names), _tar_blocks(archive, ranks, name))


def _tar_blocks(archive: tarfile.TarFile, ranks: dict[str, int], name: str) -> Iterator[Block]:
    for member in _image_members(archive, name):
        file = archive.extractfile(member)
        data = file.read() if file is not None else b""
        yield _block(ranks[member.name], data, f"{name}: {member.name}")


def _image_members(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    end = 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # keep no header in memory
        blocks = -(-member.size // _TAR_BLOCK_BYTES) if member.isreg() else 0
        end = member.offset_data + blocks * _TAR_BLOCK_BYTES
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DatasetError(
                f"{name}: {member.name} is a link, a device or sparse; only plain files are read"
            )
        if is_image_name(member.name):
            _check_file_size(member.size, f"{name}: {member.name}")
            yield member
    _check_end_mark(archive, end, name)


def _check_end_mark(archive: tarfile.TarFile, end: int, name: str) -> None:
    # Where a header is cut off, tarfile only stops: the images after it would silently be missing.
    file = archive.fileobj
    file.seek(end)
    if file.read(_TAR_BLOCK_BYTES) != bytes(_TAR_BLOCK_BYTES):
        raise DatasetError(f"{name} is cut off: it has no end mark; pack it again")


def _block(index: int, data: bytes, name: str) -> Block:
    return Block(index, decode_image(data, name)[np.newaxis], name)


def _check_not_empty(names: Iterable[str], name: str) -> None:
    if not names:
        raise DatasetError(f"{name} holds no .png, .jpg or .jpeg file")


def _check_file_size(size_bytes: int, name: str) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise DatasetError(f"{name} has {size_bytes} bytes; an image has {MAX_FILE_BYTES} at most")
