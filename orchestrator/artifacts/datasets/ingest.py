"""Takes data sets into the store from wherever they are, chunk by chunk, in constant memory."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.chunks import PixelHash, read_chunk
from orchestrator.artifacts.datasets.finishing import abandon, finish
from orchestrator.artifacts.datasets.label_choice import find_labels
from orchestrator.artifacts.datasets.labels import (
    ClassLabels,
    describe_classes,
    store_labels,
    with_labels,
)
from orchestrator.artifacts.datasets.node_cache import cache_usable
from orchestrator.artifacts.datasets.preparing import Preparation, UnitCommit, preparation_name
from orchestrator.artifacts.datasets.reading import Reading, label_mode, reading_of
from orchestrator.artifacts.datasets.refs import NAMED_SHA256, DatasetRef, describe, find_known
from orchestrator.artifacts.datasets.sources import Source, open_source
from orchestrator.artifacts.datasets.stored import stored_source
from orchestrator.errors import DatasetError, ObjectNotFoundError
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.keys import PreparationPaths
from orchestrator.store.objects import ObjectStore, open_bucket

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


def _silent(line: str) -> None:
    pass


def _unseen(done: int, total: int) -> None:
    pass


def ingest(  # noqa: PLR0913  # the options of the verb
    source: str,
    store: ObjectStore,
    cache: Path,
    open_place: Callable[[str], ObjectStore] = open_bucket,
    *,
    reading: Reading | None = None,
    labels: str = "none",
    needs_labels: bool = True,
    say: Say = _silent,
    progress: Progress = _unseen,
) -> DatasetRef:
    """Take a data set into the store, unless it is there.

    Args:
        source: What `resolve_source` returned.
        store: Where it goes.
        cache: Folder of the local cache, for an unpacked copy of a packed tar.
        open_place: Opens the s3:// URI of a source.
        reading: What the images are to become; None takes them as they are.
        labels: `none`; `auto` for the surest that there are; `folders`; or `file:PATH`.
        needs_labels: Whether `auto` is refused where there are none.
        say: Told in one line what was taken and what was left out.
        progress: Told how many of the images are in the store.

    Returns:
        The data set, with the source it was asked for by.

    Raises:
        DatasetError: The source cannot be used; the message names the file.
    """
    reading = reading or Reading()
    known = find_known(source, store)
    if known is not None and reading == Reading():
        if labels == "none":
            return describe(store, known.images)
        if labels == "auto" and known.class_names:
            return known
    with _scratch(cache) as folder:
        if known is None or source in NAMED_SHA256:
            opened = open_source(source, folder, open_place)
        else:
            opened = stored_source(store, known)
        ref = _prepared(opened, reading, store) or _prepare(opened, reading, store, progress)
        outcome = _outcome(opened, reading, store)
        say(outcome["line"])
        classes = find_labels(opened, labels, open_place, are_needed=needs_labels)
    if classes is None:
        return replace(ref, source=source)
    return _labelled(replace(ref, source=source), classes, outcome["damaged"], store, say)


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """Yield a folder of the cache for as long as a source is read."""
    with cache_usable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=cache, prefix="ingest-")
    with scratch as folder:
        yield Path(folder)


def _labelled(
    images: DatasetRef, classes: ClassLabels, damaged: Sequence[int], store: ObjectStore, say: Say
) -> DatasetRef:
    """Store the labels of a set whose damaged images were passed over."""
    kept = np.delete(classes.values, np.array(damaged, np.int64))
    classes = ClassLabels(kept, classes.names)
    ref = with_labels(images, classes)
    store_labels(ref, classes, store)
    say(describe_classes(ref))
    return ref


def ingest_as_asked(
    dataset: DatasetSpec,
    store: ObjectStore,
    cache: Path,
    *,
    needs_labels: bool = True,
    say: Say = _silent,
    progress: Progress = _unseen,
) -> DatasetRef:
    """Take a data set into the store as a job file asks for it. Raises: DatasetError."""
    return ingest(
        dataset.source,
        store,
        cache,
        reading=reading_of(dataset),
        labels=label_mode(dataset),
        needs_labels=needs_labels,
        say=say,
        progress=progress,
    )


def _outcome(source: Source, reading: Reading, store: ObjectStore) -> dict[str, Any]:
    key = PreparationPaths(preparation_name(source, reading)).result
    return json.loads(store.get(key).body)  # type: ignore[no-any-return]


def _prepared(source: Source, reading: Reading, store: ObjectStore) -> DatasetRef | None:
    """Return what came of the same preparation before, if the store still holds it."""
    try:
        return describe(store, str(_outcome(source, reading, store)["sha256"]))
    except (ObjectNotFoundError, DatasetError):
        return None


def _prepare(
    source: Source, reading: Reading, store: ObjectStore, progress: Progress
) -> DatasetRef:
    """Prepare a source in this process, one unit after the other."""
    preparation = Preparation(source, reading, store)
    plan, commits = preparation.plan, preparation.committed()
    pixels = PixelHash(plan.dtype, (plan.num_images, *plan.image_shape))
    try:
        for unit in range(plan.num_units):
            _take_unit(preparation, unit, commits, pixels)
            progress(plan.bounds(unit)[1], plan.num_images)
        return finish(preparation, commits, pixels)
    except DatasetError:
        abandon(preparation, commits)
        raise


def _take_unit(
    preparation: Preparation, unit: int, commits: dict[int, UnitCommit], pixels: PixelHash
) -> None:
    """Take a unit's images into the hash: those in the store, or else prepared now."""
    images: NDArray[Any] | None = None
    if unit not in commits:
        commits[unit], images = preparation.write_unit(unit)
    elif (chunk := commits[unit].chunk) is not None:
        images = read_chunk(preparation.store, chunk)
    if images is not None:
        pixels.update(images)
