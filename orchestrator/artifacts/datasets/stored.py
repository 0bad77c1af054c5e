"""A data set of the store as a source: another one is made of it, of another size or kind."""

from collections.abc import Iterator

from orchestrator.artifacts.datasets.arrays import Block
from orchestrator.artifacts.datasets.chunks import read_chunk
from orchestrator.artifacts.datasets.labels import read_labels
from orchestrator.artifacts.datasets.left_out import Survey
from orchestrator.artifacts.datasets.manifest import Manifest, read_manifest
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.store.objects import ObjectStore


def stored_source(store: ObjectStore, ref: DatasetRef) -> Source:
    """Open a data set of the store as a source. Raises: DatasetError."""
    manifest = read_manifest(store, ref.images)
    return Source(
        ref.sha256,
        ref.num_images,
        Survey(),
        blocks=lambda start, stop: stored_blocks(store, manifest, start, stop),
        labels={"array": lambda: read_labels(store, ref)} if ref.class_names else {},
        stamp=ref.sha256,
    )


def stored_blocks(store: ObjectStore, manifest: Manifest, start: int, stop: int) -> Iterator[Block]:
    """Yield the images of a set from `start` to `stop`, a chunk at a time. Raises: DatasetError."""
    first = 0
    for chunk in manifest.chunks:
        lower, upper = max(start, first), min(stop, first + chunk.num_images)
        if lower < upper:
            images = read_chunk(store, chunk)
            yield Block(lower, images[lower - first : upper - first], chunk.key)
        first += chunk.num_images
