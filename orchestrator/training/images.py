"""Opens the images of a training: as one map of all, or as chunks with a window that moves."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ddpm.training.data import ImageDataset
from orchestrator.artifacts.datasets.chunk_cache import CachedChunks, check_window, decide_window
from orchestrator.artifacts.datasets.labels import describe_classes, fetch_labels
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.node_cache import fetch, fits
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.cluster.cache import cache_folder
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.objects import ObjectStore

_WINDOW = "shuffle_window"  # of `FixedTraining`
logger = logging.getLogger(__name__)


def shuffle_decision(store: ObjectStore, spec: DatasetSpec, ref: DatasetRef) -> dict[str, int]:
    """Decide in which order a job sees its images, as part of what is decided once.

    Raises:
        DatasetError: The set fits this machine neither as a whole nor in blocks.
    """
    if spec.shuffle == "full":
        return {}
    manifest, cache = read_manifest(store, ref.images), cache_folder("datasets")
    return {_WINDOW: 0 if fits(manifest, cache) else decide_window(manifest, cache)}


@contextmanager
def opened_images(store: ObjectStore, ref: DatasetRef, window: int) -> Iterator[ImageDataset]:
    """Yield the images of a job with the order that was decided for it.

    Args:
        store: Where the data set is.
        ref: The data set.
        window: Chunks of a window of images; 0 for all images at once.

    Raises:
        DatasetError: This machine cannot hold what that order needs, or the set is damaged.
    """
    cache = cache_folder("datasets")
    if ref.class_names:
        logger.info("data set %s: %s", ref.sha256[:12], describe_classes(ref))
    labels = fetch_labels(store, ref, cache)
    if not window:
        whole = fetch(store, ref.images, cache, for_training=True)
        yield ImageDataset.open(whole, labels, ref.value_range)
        return
    manifest = read_manifest(store, ref.images)
    check_window(manifest, window, cache)
    logger.info("images are drawn from %d of %d chunks at a time", window, len(manifest.chunks))
    with closing(CachedChunks(store, manifest, cache)) as chunks:
        yield ImageDataset.of_blocks(chunks, window, labels, ref.value_range)
