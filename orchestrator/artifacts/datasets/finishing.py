"""Makes a prepared data set whole: proves that all is there, names it, writes its manifest."""

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from orchestrator.artifacts.datasets.chunks import (
    Chunk,
    PixelHash,
    read_chunk,
)
from orchestrator.artifacts.datasets.cutting import Plan, UnitCommit
from orchestrator.artifacts.datasets.damages import list_damage
from orchestrator.artifacts.datasets.manifest import MANIFEST, Manifest, read_manifest
from orchestrator.artifacts.datasets.preparing import Preparation
from orchestrator.artifacts.datasets.reading import Reading, decoder_versions
from orchestrator.artifacts.datasets.refs import DatasetRef, manifest_key
from orchestrator.artifacts.datasets.statistics import Statistics
from orchestrator.errors import ConditionFailedError, DatasetError
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore

_MANY = 10_000  # damaged images whose names a manifest keeps


@dataclass(frozen=True)
class Prepared:
    """What came of a preparation.

    Attributes:
        sha256: The name of the set of images.
        damaged: Places in the source of the images that were passed over.
        line: What was taken and what was left out, for people.
    """

    sha256: str
    damaged: tuple[int, ...] = ()
    line: str = ""


PREPARED = Codec(Prepared, "outcome of a preparation")


def finish(
    preparation: Preparation, units: Sequence[UnitCommit], pixels: PixelHash | None
) -> DatasetRef:
    """Write the manifest of a set whose chunks are all committed; the same set is stored once.

    Args:
        preparation: What was prepared.
        units: The commits of all chunks, in order.
        pixels: The hash of all images where whoever prepared them took it on the way; else they
            are read back.

    Raises:
        DatasetError: Images are damaged and not to be skipped, have values out of range, or are not
            as many as there were.
    """
    plan, store = preparation.plan, preparation.store
    damages = [damage for unit in units for damage in unit.damages]
    chunks = [unit.chunk for unit in units if unit.chunk is not None]
    num_images = sum(chunk.num_images for chunk in chunks)
    _check_all_there(preparation, num_images + len(damages))
    if damages and not preparation.reading.skip_damaged:
        raise list_damage(damages, plan.num_images)
    whole = reduce(add, (unit.statistics for unit in units if unit.statistics is not None))
    value_range = _value_range(plan, preparation.reading, whole, preparation.source.name)
    if pixels is None or damages:
        pixels = _hash_again(store, plan, chunks, num_images)
    sha256 = pixels.hexdigest(plan.dtype, value_range)
    height, width, channels = plan.image_shape
    name = preparation.source.name
    ref = DatasetRef(sha256, num_images, height, width, channels, name, plan.dtype, value_range)
    _put_once(store, _manifest(preparation, ref, units, whole))
    prepared = Prepared(
        sha256=ref.sha256,
        damaged=tuple(damage.index for damage in damages),
        line=_described(preparation, units, num_images),
    )
    # Before anything goes: who misses a part then finds that all is done.
    store.put(preparation.paths.result, PREPARED.encode(prepared))
    clear(preparation, ref, chunks)
    return ref


def clear(preparation: Preparation, ref: DatasetRef, chunks: Sequence[Chunk] | None = None) -> None:
    """Remove all that is left of a preparation but the set which came of it.

    Args:
        preparation: What was prepared.
        ref: The set.
        chunks: Those that the commits name; None where nobody has read the commits.
    """
    store, paths = preparation.store, preparation.paths
    standing = {chunk.key for chunk in read_manifest(store, ref.images).chunks}
    if chunks is None or preparation.plan.units_per_chunk > 1:
        _drop_chunks(preparation, paths.units, standing)
    if chunks is None:
        _drop_chunks(preparation, paths.joined, standing)
    for key in preparation.own_chunks | {chunk.key for chunk in chunks or ()}:
        if key not in standing:
            store.delete(key)
    _forget(preparation)


def _check_all_there(preparation: Preparation, num_found: int) -> None:
    """Refuse parts of another cut, which a process may leave that wakes up when all is over."""
    wanted = preparation.plan.num_images
    if num_found != wanted:
        raise DatasetError(
            f"{preparation.source.name}: what is prepared holds {num_found} of {wanted} images, so "
            "it was cut in two ways; it is removed, submit again"
        )


def abandon(preparation: Preparation) -> None:
    """Remove a preparation that can't become a set."""
    for folder in (preparation.paths.units, preparation.paths.joined):
        _drop_chunks(preparation, folder)
    for key in preparation.own_chunks:
        preparation.store.delete(key)
    _forget(preparation)


def _drop_chunks(
    preparation: Preparation, folder: str, spared: Collection[str] = frozenset()
) -> None:
    """Remove the chunks that the commits of a folder name."""
    for info in preparation.store.list_objects(folder):
        commit = preparation.find(info.key)
        if commit is not None and commit.chunk is not None and commit.chunk.key not in spared:
            preparation.store.delete(commit.chunk.key)


def _forget(preparation: Preparation) -> None:
    """Remove the objects of a preparation, the plan last."""
    infos = list(preparation.store.list_objects(preparation.paths.folder))
    for info in sorted(infos, key=lambda info: info.key == preparation.paths.plan):
        preparation.store.delete(info.key)


def _manifest(
    preparation: Preparation, ref: DatasetRef, units: Sequence[UnitCommit], whole: Statistics
) -> Manifest:
    """Return the manifest: beside the set, how it was made, and of what."""
    chunks = tuple(unit.chunk for unit in units if unit.chunk is not None)
    damages = tuple(damage for unit in units for damage in unit.damages)
    return Manifest(
        **vars(ref),
        size_bytes=sum(chunk.size_bytes for chunk in chunks),
        chunks=chunks,
        statistics=whole.summary(),
        reading=preparation.reading,
        decoders=decoder_versions(),
        survey=preparation.source.survey.report(),
        notes=dict(sum((Counter(unit.notes) for unit in units), Counter())),
        num_damaged=len(damages),
        damaged=damages[:_MANY],
        preparation=preparation.paths.preparation,
    )


def _value_range(
    plan: Plan, reading: Reading, statistics: Statistics, source: str
) -> tuple[float, float]:
    found = (min(statistics.lows), max(statistics.highs))
    if reading.value_range == "minmax":
        if found[0] == found[1]:
            raise DatasetError(
                f"{source} holds the value {found[0]} alone, so dataset.value_range: minmax has no "
                "width; give [low, high]"
            )
        return found
    if reading.value_range == "auto":
        bounds = np.iinfo(plan.dtype)
        return float(bounds.min), float(bounds.max)
    low, high = reading.value_range
    if found[0] < low or found[1] > high:
        raise DatasetError(
            f"{source} holds values from {found[0]:g} to {found[1]:g}, which leave "
            f"dataset.value_range [{low:g}, {high:g}]; widen it"
        )
    return low, high


def _hash_again(
    store: ObjectStore, plan: Plan, chunks: Sequence[Chunk], num_images: int
) -> PixelHash:
    pixels = PixelHash(plan.dtype, (num_images, *plan.image_shape))
    for chunk in chunks:
        pixels.update(read_chunk(store, chunk))
    return pixels


def _put_once(store: ObjectStore, manifest: Manifest) -> None:
    """Put the manifest unless the set is there."""
    with suppress(ConditionFailedError):
        store.put(manifest_key(manifest.sha256), MANIFEST.encode(manifest), if_absent=True)


def _described(preparation: Preparation, units: Sequence[UnitCommit], num_images: int) -> str:
    survey = preparation.source.survey
    for unit in units:
        survey.notes.update(unit.notes)
    damaged = sum(len(unit.damages) for unit in units)
    if damaged:
        survey.notes["damaged, passed over"] = damaged
    return survey.line(num_images)
