"""Preparing goes on after any crash, is done once by many, and needs no more memory for more."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from orchestrator.artifacts.datasets import preparing
from orchestrator.artifacts.datasets.chunks import content_sha256
from orchestrator.artifacts.datasets.ingest import (
    Prepare,
    Progress,
    complete,
    ingest,
    open_any,
)
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.node_cache import LIMIT_VARIABLE, fetch, make_room
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.preparing import Preparation
from orchestrator.artifacts.datasets.proof import verify_dataset
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.refs import DatasetRef, describe
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import DatasetError, StoreUnavailableError
from orchestrator.store.objects import ObjectStore
from tests.support.fakes import FaultyStore, MemoryStore

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
SHA256 = content_sha256(IMAGES)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make three images a chunk."""
    monkeypatch.setattr(preparing, "CHUNK_BYTES", 3 * 64)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of images."""
    folder = tmp_path / "set"
    folder.mkdir()
    for index, image in enumerate(IMAGES):
        (folder / f"{index:03d}.png").write_bytes(encode_png(image))
    return folder


def in_units(
    source: Source, reading: Reading, store: ObjectStore, progress: Progress
) -> DatasetRef:
    """Prepare with two images a unit, so that chunks are put together."""
    return complete(Preparation(source, reading, store, num_units=10), progress)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [None, in_units])
@pytest.mark.parametrize("after", [False, True])
def test_preparation_that_is_killed_anywhere_goes_on(
    after: bool,
    prepare: Prepare | None,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever call was the last one, and whether or not it still reached the store."""
    monkeypatch.setattr(preparing, "_LEAST_IMAGES", 1)
    ingest_so = partial(ingest, prepare=prepare)
    unbroken = FaultyStore(MemoryStore(), fail_at=0)
    ingest_so(str(source), unbroken, tmp_path / "cache")
    for fail_at in range(1 + after, unbroken.num_calls + 1, 2):  # every call, in one of two ways
        store = MemoryStore()
        faulty = FaultyStore(store, fail_at=fail_at, after=after, dead=True)
        with pytest.raises(StoreUnavailableError):
            ingest_so(str(source), faulty, tmp_path / "cache")
        before = {key: s.etag for key, s in store.objects.items() if "/units/" in key}
        ref = ingest_so(str(source), store, tmp_path / "cache")
        assert ref.sha256 == SHA256
        assert verify_dataset(store, ref).is_whole
        named = {chunk.key for chunk in read_manifest(store, SHA256).chunks}
        assert len(named) == 7
        stray = {key for key in store.objects if key.startswith("datasets/chunks/")} - named
        assert len(stray) <= 1  # a chunk whose commit was lost, which `gc` finds
        assert len(before) <= (7 if prepare is None else 13)


def test_a_unit_that_was_cut_otherwise_makes_no_set(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that slept commits its unit of a plan that is gone: its images are others."""
    monkeypatch.setattr(preparing, "_LEAST_IMAGES", 1)
    store = MemoryStore()
    asleep = Preparation(open_any(str(source), store, tmp_path), Reading(), store, num_units=10)
    asleep.write_unit(0)
    store.delete(asleep.paths.plan)
    with pytest.raises(DatasetError, match="19 of 20 images"):
        ingest(str(source), store, tmp_path / "cache")
    assert ingest(str(source), store, tmp_path / "cache").sha256 == SHA256


def test_units_that_are_committed_are_not_prepared_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on is what the commits are for."""
    store, written = MemoryStore(), list[int]()
    real = preparing.Preparation.write_unit

    def write_unit(self: preparing.Preparation, unit: int) -> object:
        if unit == 4 and written.count(4) == 0:
            written.append(unit)
            raise StoreUnavailableError("killed")
        written.append(unit)
        return real(self, unit)

    monkeypatch.setattr(preparing.Preparation, "write_unit", write_unit)
    with pytest.raises(StoreUnavailableError):
        ingest(str(source), store, tmp_path / "cache")
    assert ingest(str(source), store, tmp_path / "cache").sha256 == SHA256
    assert written == [0, 1, 2, 3, 4, 4, 5, 6]


def test_who_waits_is_told_of_every_image(source: Path, tmp_path: Path) -> None:
    """A chunk of large photos takes minutes."""
    seen = list[tuple[int, int]]()
    ingest(str(source), MemoryStore(), tmp_path / "cache", progress=lambda *told: seen.append(told))
    assert sorted({done for done, _ in seen}) == list(range(1, 21))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {20}


def test_two_that_prepare_at_once_store_it_once(source: Path, tmp_path: Path) -> None:
    """Two people submit on the same folder."""
    store = MemoryStore()
    with ThreadPoolExecutor(4) as pool:
        caches = [tmp_path / f"cache{n}" for n in range(4)]
        refs = set(pool.map(lambda cache: ingest(str(source), store, cache), caches))
    assert {ref.sha256 for ref in refs} == {SHA256}
    assert verify_dataset(store, describe(store, SHA256)).is_whole
    chunks = {key for key in store.objects if key.startswith("datasets/chunks/")}
    assert chunks == {chunk.key for chunk in read_manifest(store, SHA256).chunks}


def test_source_that_did_not_change_is_not_decoded_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second submit of a million photos takes as long as listing them."""
    store = MemoryStore()
    first = ingest(str(source), store, tmp_path / "cache")
    monkeypatch.setattr(preparing.Preparation, "write_unit", lambda self, unit: 1 / 0)
    assert ingest(str(source), store, tmp_path / "cache") == first
    (source / "000.png").write_bytes(encode_png(IMAGES[1]))
    with pytest.raises(ZeroDivisionError):
        ingest(str(source), store, tmp_path / "cache")


def test_name_does_not_depend_on_how_a_set_is_cut(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what passing over a damaged image leaves."""
    (source / "0000.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr(preparing, "CHUNK_BYTES", 7 * 64)
    reading = Reading(skip_damaged=True)
    store = MemoryStore()
    ref = ingest(str(source), store, tmp_path / "cache", reading=reading)
    assert ref.sha256 == SHA256
    np.testing.assert_array_equal(np.load(fetch(store, SHA256, tmp_path / "cache")), IMAGES)


def test_statistics_of_chunks_add_up(source: Path, tmp_path: Path) -> None:
    """They are taken on the way, and not by reading the set again."""
    store = MemoryStore()
    ingest(str(source), store, tmp_path / "cache")
    statistics = read_manifest(store, SHA256).statistics
    assert statistics is not None
    np.testing.assert_allclose(statistics.mean, [IMAGES.mean()])
    np.testing.assert_allclose(statistics.deviation, [IMAGES.std()])
    assert statistics.histogram == (tuple(np.bincount(IMAGES.ravel(), minlength=256).tolist()),)


def test_cache_makes_room_for_another_set_and_says_when_there_is_none(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that trains on one set after the other must not run full."""
    store, cache = MemoryStore(), tmp_path / "node"
    ref = ingest(str(source), store, tmp_path / "cache")
    path = fetch(store, ref.sha256, cache)
    monkeypatch.setenv(LIMIT_VARIABLE, str(3000 / (1 << 30)))
    make_room(cache, 2000, "other")
    assert not path.exists()
    monkeypatch.setenv(LIMIT_VARIABLE, str(1000 / (1 << 30)))
    with pytest.raises(DatasetError, match=LIMIT_VARIABLE):
        fetch(store, ref.sha256, cache)
