"""Takes data sets into the store from wherever they are, chunk by chunk, in constant memory."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.chunks import PixelHash
from orchestrator.artifacts.datasets.cutting import UnitCommit
from orchestrator.artifacts.datasets.finishing import PREPARED, Prepared, abandon, clear, finish
from orchestrator.artifacts.datasets.label_choice import find_labels
from orchestrator.artifacts.datasets.labels import (
    ClassLabels,
    describe_classes,
    store_labels,
    with_labels,
)
from orchestrator.artifacts.datasets.node_cache import cache_usable
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.preparing import Preparation, preparation_name
from orchestrator.artifacts.datasets.reading import Reading, label_mode, reading_of
from orchestrator.artifacts.datasets.refs import NAMED_SHA256, DatasetRef, describe, find_known
from orchestrator.artifacts.datasets.sources import open_source
from orchestrator.artifacts.datasets.stored import stored_source
from orchestrator.errors import DatasetError, ObjectNotFoundError
from orchestrator.specs.sections import SourceSpec
from orchestrator.store.keys import PreparationPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_bucket

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
Prepare = Callable[[Source, Reading, ObjectStore, Progress], DatasetRef]


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
    prepare: Prepare | None = None,
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
        progress: Told how many of the images are read, and of how many.
        prepare: Prepares what was not prepared before; None for this process alone.

    Returns:
        The data set, with the source it was asked for by.

    Raises:
        DatasetError: The source cannot be used; the message names the file.
    """
    reading, prepare = reading or Reading(), prepare or prepare_here
    known = find_known(source, store)
    if known is not None and reading == Reading():
        if labels == "none":
            return describe(store, known.images)
        if labels == "auto" and known.class_names:
            return known
    with scratch_folder(cache) as folder:
        opened = open_any(source, store, folder, open_place)
        ref = _found(opened, reading, store) or prepare(opened, reading, store, progress)
        outcome = _outcome(opened, reading, store)
        say(outcome.line)
        classes = find_labels(opened, labels, open_place, are_needed=needs_labels)
    if classes is None:
        return replace(ref, source=source)
    return _labelled(replace(ref, source=source), classes, outcome.damaged, store, say)


def open_any(
    source: str,
    store: ObjectStore,
    scratch: Path,
    open_place: Callable[[str], ObjectStore] = open_bucket,
) -> Source:
    """Open a source, which may be another data set of the store. Raises: DatasetError."""
    known = None if source in NAMED_SHA256 else find_known(source, store)
    if known is not None:
        return stored_source(store, known)
    return open_source(source, scratch, open_place)


@contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
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
    notes = classes.notes
    kept = np.delete(classes.values, np.array(damaged, np.int64))
    classes = ClassLabels(kept, classes.names)
    ref = with_labels(images, classes)
    store_labels(ref, classes, store)
    for line in (describe_classes(ref), *notes):
        say(line)
    return ref


def ingest_as_asked(
    dataset: SourceSpec,
    store: ObjectStore,
    cache: Path,
    *,
    needs_labels: bool = True,
    say: Say = _silent,
    progress: Progress = _unseen,
    prepare: Prepare | None = None,
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
        prepare=prepare,
    )


def _outcome(source: Source, reading: Reading, store: ObjectStore) -> Prepared:
    key = PreparationPaths(preparation_name(source, reading)).result
    return PREPARED.decode(store.get(key).body, key)


def _prepared(source: Source, reading: Reading, store: ObjectStore) -> DatasetRef | None:
    """Return what came of the same preparation before, if the store still holds it."""
    try:
        return describe(store, _outcome(source, reading, store).sha256)
    except (ObjectNotFoundError, DatasetError):
        return None


def _found(source: Source, reading: Reading, store: ObjectStore) -> DatasetRef | None:
    """Return what came of the same preparation before, and remove what its broken end left."""
    ref = _prepared(source, reading, store)
    if ref is not None and store.exists(PreparationPaths(preparation_name(source, reading)).plan):
        clear(Preparation(source, reading, store), ref)
    return ref


def prepare_here(
    source: Source, reading: Reading, store: ObjectStore, progress: Progress = _unseen
) -> DatasetRef:
    """Prepare a source in this process, one chunk after the other. Raises: DatasetError."""
    return complete(Preparation(source, reading, store), progress)


def complete(
    preparation: Preparation, progress: Progress = _unseen, read_ahead: int = 1
) -> DatasetRef:
    """Make a set of what is prepared, and prepare what is not; the images are hashed in order.

    Args:
        preparation: What is to become whole.
        progress: Told how many of the images are read, and of how many.
        read_ahead: Chunks that are taken at once, in memory.

    Raises:
        DatasetError: Images cannot be used; then all that was prepared goes.
    """
    plan, commits = preparation.plan, list[UnitCommit]()
    pixels = PixelHash(plan.dtype, (plan.num_images, *plan.image_shape))
    preparation.on_read = lambda done: progress(done, plan.num_images)
    try:
        for commit, images in _taken(preparation, read_ahead):
            commits.append(commit)
            if images is not None:
                pixels.update(images)
            done = min(len(commits) * plan.images_per_chunk, plan.num_images)
            progress(done, plan.num_images)
        return finish(preparation, commits, pixels)
    except DatasetError:
        # Another process that prepared the same is done, and its parts are gone.
        ref = _prepared(preparation.source, preparation.reading, preparation.store)
        if ref is not None:
            clear(preparation, ref)
            return ref
        abandon(preparation)
        raise


def _taken(
    preparation: Preparation, read_ahead: int
) -> Iterator[tuple[UnitCommit, NDArray[Any] | None]]:
    coming: deque[Future[tuple[UnitCommit, NDArray[Any] | None]]] = deque()
    with ThreadPoolExecutor(read_ahead, "chunks") as pool:
        try:
            for number in range(preparation.plan.num_chunks):
                coming.append(pool.submit(preparation.take_chunk, number))
                if len(coming) >= read_ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
