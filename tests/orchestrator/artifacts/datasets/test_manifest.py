"""What the store says of a data set, in this version's words, an older one's and a newer one's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.artifacts.datasets.cutting import PLAN
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.manifest import MANIFEST, Manifest, read_manifest
from orchestrator.artifacts.datasets.refs import describe, manifest_key
from orchestrator.errors import StoredFormError
from tests.support.fakes import MemoryStore

NAME = "ab" * 32
# As version 0.1 wrote it for a set that was one array.
ONE_ARRAY: dict[str, Any] = {
    "format_version": 1,
    "sha256": NAME,
    "num_images": 12,
    "height": 8,
    "width": 8,
    "channels": 1,
    "source": "digits",
    "size_bytes": 896,
}


def put(store: MemoryStore, manifest: dict[str, Any]) -> None:
    """Put a manifest as somebody wrote it."""
    store.put(manifest_key(NAME), json.dumps(manifest).encode())


def test_a_manifest_comes_back_as_it_went(tmp_path: Path) -> None:
    """All that `datasets show` prints is read out of it, and programs read the object itself."""
    store = MemoryStore()
    np.save(tmp_path / "images.npy", np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1))
    ref = ingest(str(tmp_path / "images.npy"), store, tmp_path / "cache")
    manifest = read_manifest(store, ref.sha256)
    assert manifest.ref == ref == describe(store, ref.sha256)
    assert MANIFEST.decode(MANIFEST.encode(manifest)) == manifest
    stored = json.loads(store.get(manifest_key(ref.sha256)).body)
    assert stored["format_version"] == 2
    assert stored["statistics"]["mean"] == pytest.approx([95.5])
    assert stored["survey"]["links_followed"] == 0
    assert [chunk["num_images"] for chunk in stored["chunks"]] == [3]
    assert stored["size_bytes"] == manifest.size_bytes > 0


def test_a_set_of_one_array_is_one_chunk_without_a_hash() -> None:
    """Stores of the first version hold such sets."""
    store = MemoryStore()
    put(store, ONE_ARRAY)
    manifest = read_manifest(store, NAME)
    (chunk,) = manifest.chunks
    assert (chunk.key, chunk.num_images) == (f"datasets/{NAME}/images.npy", 12)
    assert (chunk.size_bytes, chunk.sha256, manifest.size_bytes) == (896, "", 896)
    assert (manifest.ref.dtype, manifest.ref.value_range) == ("uint8", (0.0, 255.0))
    assert manifest.statistics is None


def test_what_a_newer_version_wrote_is_refused_in_one_line() -> None:
    """Read by halves, a set of a form that nobody here knows would be trained on."""
    store = MemoryStore()
    put(store, {**ONE_ARRAY, "format_version": 3})
    for read in (read_manifest, describe):
        with pytest.raises(StoredFormError, match=r"a newer version wrote it \(format 3"):
            read(store, NAME)


def test_words_that_nobody_here_knows_are_passed_over() -> None:
    """Two versions may meet at one store."""
    store = MemoryStore()
    put(store, {**ONE_ARRAY, "colour_space": "sRGB"})
    assert isinstance(read_manifest(store, NAME), Manifest)


def test_in_the_plan_of_an_earlier_version_a_unit_is_a_chunk() -> None:
    """A preparation that was begun before goes on."""
    old = {
        "num_images": 50,
        "images_per_unit": 20,
        "image_shape": [8, 8, 1],
        "dtype": "uint8",
        "first_name": "a.png",
    }
    plan = PLAN.decode(json.dumps(old).encode())
    assert (plan.images_per_chunk, plan.num_units, plan.image_shape) == (20, 3, (8, 8, 1))
