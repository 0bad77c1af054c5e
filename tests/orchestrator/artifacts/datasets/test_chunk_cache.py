"""Chunks of a set that does not fit the node: fetched once, leased while read, within the limit."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from orchestrator.artifacts.datasets import chunk_cache, preparing
from orchestrator.artifacts.datasets.chunk_cache import CachedChunks, check_window, decide_window
from orchestrator.artifacts.datasets.chunks import Chunk
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.manifest import Manifest, read_manifest
from orchestrator.artifacts.datasets.node_cache import LIMIT_VARIABLE, fetch, make_room
from orchestrator.errors import DatasetError
from tests.support.fakes import MemoryStore

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
CHUNK = 4 * 64 + 128  # bytes of four images with the head of a .npy


class CountingStore(MemoryStore):
    """A store that tells which chunks were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key: str):  # type: ignore[no-untyped-def]
        """Return an object."""
        if "/chunks/" in key:
            self.read.append(key)
        return super().get(key)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountingStore:
    """A store with a set of ten chunks."""
    monkeypatch.setattr(preparing, "CHUNK_BYTES", 4 * 64)
    store = CountingStore()
    np.save(tmp_path / "x.npy", IMAGES)
    ingest(str(tmp_path / "x.npy"), store, tmp_path / "ingest")
    return store


@pytest.fixture
def manifest(store: CountingStore) -> Manifest:
    """Of that set."""
    (key,) = (key for key in store.objects if key.endswith("manifest.json"))
    return read_manifest(store, key.split("/")[1])


@pytest.fixture
def chunks(store: CountingStore, manifest: Manifest, tmp_path: Path) -> Iterator[CachedChunks]:
    """The set's chunks on a node."""
    opened = CachedChunks(store, manifest, tmp_path / "node")
    yield opened
    opened.close()


def _limit(monkeypatch: pytest.MonkeyPatch, num_chunks: float) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, str(num_chunks * CHUNK / (1 << 30)))


def _here(tmp_path: Path) -> set[int]:
    return {int(path.stem) for path in (tmp_path / "node").glob("*.chunks/*.npy")}


def test_images_come_by_number_whatever_is_at_hand(chunks: CachedChunks) -> None:
    """A report reads held-out images that no window expects."""
    numbers = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(chunks[numbers], IMAGES[numbers])
    chunks.expect((3, 1))
    np.testing.assert_array_equal(chunks[numbers], IMAGES[numbers])


def test_chunk_is_fetched_once_for_all_that_read_it(
    chunks: CachedChunks, store: CountingStore, manifest: Manifest, tmp_path: Path
) -> None:
    """Eight workers of a node read the same window."""
    others = [CachedChunks(store, manifest, tmp_path / "node") for _ in range(4)]
    start = threading.Barrier(4)

    def read(other: CachedChunks) -> None:
        start.wait()
        other.expect((0, 1, 2))
        np.testing.assert_array_equal(other[np.arange(12)], IMAGES[:12])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, others))
    for other in others:
        other.close()
    assert sorted(store.read) == sorted(chunk.key for chunk in manifest.chunks[:3])


@pytest.mark.timeout(60)
def test_two_that_want_a_chunk_at_once_both_read_it(
    store: CountingStore,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second reads while the first still holds it, as workers that wait for each other do."""
    both, seen = threading.Barrier(2, timeout=20), threading.local()
    is_fetched = chunk_cache.is_fetched

    def looked_at_by_both(path: Path, chunk: Chunk) -> bool:
        found = is_fetched(path, chunk)
        if not hasattr(seen, "first"):
            seen.first = both.wait()  # each sees that it is not here before either brings it
        return found

    monkeypatch.setattr(chunk_cache, "is_fetched", looked_at_by_both)
    two = [CachedChunks(store, manifest, tmp_path / "node") for _ in range(2)]
    for one in two:
        one.expect((0,))
    for one in two:  # neither has let it go
        np.testing.assert_array_equal(one[np.arange(4)], IMAGES[:4])
    assert len(store.read) == 1
    for one in two:
        one.close()


def test_what_is_leased_stays_and_the_rest_makes_room(
    chunks: CachedChunks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit holds while a window moves over the set; no chunk in use is taken away."""
    _limit(monkeypatch, 4)
    for first in range(9):
        chunks.expect((first, first + 1))
        at = np.arange(4 * first, 4 * first + 8)
        np.testing.assert_array_equal(chunks[at], IMAGES[at])
        assert {first, first + 1} <= _here(tmp_path)
        assert len(_here(tmp_path)) <= 4
    assert not make_room(tmp_path / "node", 3 * CHUNK)
    assert {8, 9} <= _here(tmp_path)
    chunks.expect(())
    assert make_room(tmp_path / "node", 4 * CHUNK)
    assert _here(tmp_path) == set()


def test_full_cache_of_leased_chunks_says_so(
    chunks: CachedChunks,
    store: CountingStore,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another training would otherwise grow beyond the disk."""
    _limit(monkeypatch, 2)
    chunks.expect((0, 1))
    assert chunks[np.arange(8)].shape == (8, 8, 8, 1)
    other = CachedChunks(store, manifest, tmp_path / "node")
    with pytest.raises(DatasetError, match=f"full of what is in use: raise {LIMIT_VARIABLE}"):
        other[np.array([20])]
    other.close()


def test_chunks_make_room_for_a_set_and_a_set_for_chunks(
    chunks: CachedChunks,
    store: CountingStore,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both count against the same limit."""
    np.save(tmp_path / "y.npy", IMAGES[::-1])
    whole = ingest(str(tmp_path / "y.npy"), store, tmp_path / "ingest")
    assert chunks[np.arange(40)].shape == (40, 8, 8, 1)
    assert len(_here(tmp_path)) == 10
    _limit(monkeypatch, 12)
    path = fetch(store, whole.images, tmp_path / "node")
    assert len(_here(tmp_path)) < 5
    assert chunks[np.arange(40)].shape == (40, 8, 8, 1)
    assert not path.exists()


def test_shortened_or_half_fetched_chunk_is_fetched_again(
    chunks: CachedChunks, store: CountingStore, tmp_path: Path
) -> None:
    """A power cut, or a process killed while it fetched."""
    assert chunks[np.arange(4)].shape == (4, 8, 8, 1)
    (path,) = (tmp_path / "node").glob("*.chunks/*.npy")
    path.write_bytes(path.read_bytes()[:200])
    path.with_name("000001.part.npy").write_bytes(b"half")
    np.testing.assert_array_equal(chunks[np.arange(8)], IMAGES[:8])
    assert _here_names(tmp_path) == {"000000.npy", "000001.npy"}


def _here_names(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "node").glob("*.chunks/*.npy")}


def test_damaged_chunk_is_never_read(
    chunks: CachedChunks, store: CountingStore, manifest: Manifest
) -> None:
    """Every object is proved on its way in, ahead of the step that needs it."""
    body = store.get(manifest.chunks[2].key).body
    store.put(manifest.chunks[2].key, body[:-1] + bytes([body[-1] ^ 1]))
    chunks.expect((1, 2))
    with pytest.raises(DatasetError, match="damaged"):
        chunks[np.arange(4, 12)]


@pytest.mark.parametrize(("num_chunks", "window"), [(6, 1), (11, 2), (1000, 10)])
def test_window_follows_from_the_limit(
    num_chunks: int,
    window: int,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two windows of two jobs fit a node's cache."""
    _limit(monkeypatch, num_chunks)
    assert decide_window(manifest, tmp_path / "node") == window


def test_node_that_cannot_hold_a_window_is_told_what_to_raise(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window was decided on another node, and other windows would be other bits."""
    _limit(monkeypatch, 3)
    with pytest.raises(DatasetError, match=f"two windows of 2 chunks .* raise {LIMIT_VARIABLE}"):
        check_window(manifest, 2, tmp_path / "node")
    _limit(monkeypatch, 1)
    with pytest.raises(DatasetError, match="two windows of 1 chunks"):
        decide_window(manifest, tmp_path / "node")


def test_set_of_the_first_format_has_no_blocks(manifest: Manifest, tmp_path: Path) -> None:
    """It is one array without hashes of its parts."""
    from dataclasses import replace

    array = replace(manifest, chunks=(replace(manifest.chunks[0], sha256=""),))
    with pytest.raises(DatasetError, match="one array, of the first format"):
        decide_window(array, tmp_path / "node")
