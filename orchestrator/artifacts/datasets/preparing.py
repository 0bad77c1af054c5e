"""Prepares a data set: a source is cut into units, and each unit is committed by itself.

A unit is a run of neighbouring images of the source; see `cutting`. Its images go first, under a
name of their own; a small put-if-absent object then names them. So any number of processes may work
on one preparation, be killed at any moment, and go on: a unit is done once. Units that are less
than a chunk are put together, also once. When all are committed, the pixels are hashed in order and
the manifest is put under that hash.

A preparation is named by what its outcome follows from: the source as it was found, how it is read,
and the versions of the libraries that decode. With other versions it is another preparation.
"""

import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.arrays import Block
from orchestrator.artifacts.datasets.chunks import CHUNK_BYTES, Chunk, encode_chunk, read_chunk
from orchestrator.artifacts.datasets.cutting import PLAN, UNIT_COMMIT, Plan, UnitCommit
from orchestrator.artifacts.datasets.damages import Damage, list_damage
from orchestrator.artifacts.datasets.decoding import decoded
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.statistics import Statistics
from orchestrator.counts import counted
from orchestrator.errors import ConditionFailedError, DatasetError, ObjectNotFoundError
from orchestrator.store.keys import PreparationPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

_LEAST_IMAGES = 16  # of a unit: with fewer, its two objects cost more than it does
Images = NDArray[Any]


def _unseen(done: int) -> None:
    pass


class Preparation:
    """One preparation of a source.

    Args:
        source: Where the images are from.
        reading: What they are to become.
        store: Where they go.
        num_units: As many pieces of work are wanted; whoever comes first decides.
        plan: How the source is cut, where that is known.
        num_threads: Threads that decode; None for one a core.

    Raises:
        DatasetError: Not one image can be read, or floats come without a range.
    """

    def __init__(
        self,
        source: Source,
        reading: Reading,
        store: ObjectStore,
        *,
        num_units: int = 1,
        plan: Plan | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.source = source
        self.reading = reading
        self.store = store
        self.paths = PreparationPaths(preparation_name(source, reading))
        self.own_chunks: set[str] = set()  # keys that this process has written
        self._num_threads = num_threads
        self.on_read: Callable[[int], None] = _unseen  # told how far in the source a unit is read
        self.plan = plan or self._planned(num_units)

    def _planned(self, num_units: int) -> Plan:
        try:
            return PLAN.decode(self.store.get(self.paths.plan).body, self.paths.plan)
        except ObjectNotFoundError:
            plan = _plan(self.source, self.reading, num_units)
        body = self._put_or_read(self.paths.plan, PLAN.encode(plan))
        return PLAN.decode(body, self.paths.plan)

    def _put_or_read(self, key: str, body: bytes) -> bytes:
        """Put an object if it is absent, and return what stands there."""
        while True:
            try:
                self.store.put(key, body, if_absent=True)
                return body
            except ConditionFailedError:
                with suppress(ObjectNotFoundError):  # another process was done, and forgot it all
                    return self.store.get(key).body

    def committed(self) -> set[int]:
        """Return the units that are done."""
        infos = self.store.list_objects(self.paths.units)
        return {int(info.key.rpartition("/")[2].removesuffix(".json")) for info in infos}

    def find(self, key: str) -> UnitCommit | None:
        """Return the commit at a key; None where there is none."""
        return UNIT_COMMIT.value(self.store, key)

    def read_unit(
        self, unit: int, progress: Callable[[int], None] = _unseen
    ) -> tuple[Images | None, list[Damage], Counter[str]]:
        """Return the images of a unit, (n, H, W, C); what cannot be read; and what was noted.

        Args:
            unit: Its number.
            progress: Told how many of its images are read; what it raises ends the reading.

        Raises:
            DatasetError: An image does not fit the others, or an array is damaged.
        """
        start, stop = self.plan.bounds(unit)
        images = np.empty((stop - start, *self.plan.image_shape), self.plan.dtype)
        num_images, damages, notes = 0, [], Counter[str]()
        for part in decoded(self.source, self.reading, start, stop, notes, self._num_threads):
            if isinstance(part, Damage):
                damages.append(part)
                continue
            self._check(part)
            images[num_images : num_images + len(part.images)] = part.images
            num_images += len(part.images)
            progress(num_images)
        if num_images + len(damages) != stop - start:
            raise DatasetError(
                f"{self.source.name}: {counted(num_images, 'image')} came where {stop - start} "
                "were announced"
            )
        return (images[:num_images] if num_images else None), damages, notes

    def _check(self, block: Block) -> None:
        """Raise DatasetError unless images fit all others."""
        found, wanted = block.images.shape[1:], self.plan.image_shape
        if found != wanted:
            raise DatasetError(
                f"{block.name} is {_size(found)} but {self.plan.first_name} is {_size(wanted)}; "
                f"all images of a set must have the same size and channels{_advice(found, wanted)}"
            )
        if block.images.dtype.name != self.plan.dtype:
            raise DatasetError(
                f"{block.name} holds {block.images.dtype} values but {self.plan.first_name} "
                f"{self.plan.dtype}; all images of a set must have the same type"
            )
        if block.images.dtype.kind == "f" and not np.isfinite(block.images).all():
            raise DatasetError(f"{block.name} holds values that are not finite numbers")

    def write_unit(self, unit: int) -> tuple[UnitCommit, Images | None]:
        """Read a unit, put its images and commit it; return the commit that stands.

        Raises:
            DatasetError: An image does not fit the others, or an array is damaged.
        """
        start, _ = self.plan.bounds(unit)
        images, damages, notes = self.read_unit(unit, lambda done: self.on_read(start + done))
        return self.commit_unit(unit, images, damages, notes)[0], images

    def commit_unit(
        self, unit: int, images: Images | None, damages: Sequence[Damage], notes: Counter[str]
    ) -> tuple[UnitCommit, bool]:
        """Put the images of a unit and commit it; return what stands, and whether it is own."""
        own = UnitCommit(
            index=unit,
            chunk=None if images is None else self._put(f"{unit:06d}", images),
            statistics=None if images is None else Statistics.of(images),
            damages=tuple(damages),
            notes=notes,
        )
        standing = self._commit(self.paths.unit(unit), own)
        return standing, standing is own

    def take_chunk(self, number: int) -> tuple[UnitCommit, Images | None]:
        """Return a chunk and its images: those in the store, or else prepared now.

        Raises:
            DatasetError: An image does not fit the others, or what is stored is damaged.
        """
        if self.plan.units_per_chunk == 1:
            return self._take(number)
        found = self.find(self.paths.joined_unit(number))
        if found is not None:
            return found, self._read(found)
        try:
            return self._joined(number)
        except DatasetError:
            found = self.find(self.paths.joined_unit(number))
            if found is None:
                raise
            return found, self._read(found)  # another process has joined them, and they are gone

    def _joined(self, number: int) -> tuple[UnitCommit, Images | None]:
        """Put a chunk together from its units, and commit it."""
        taken = [self._take(unit) for unit in self.plan.units_of(number)]
        parts = [images for _, images in taken if images is not None]
        images = np.concatenate(parts) if parts else None
        statistics = [commit.statistics for commit, _ in taken if commit.statistics is not None]
        own = UnitCommit(
            index=number,
            chunk=None if images is None else self._put(f"{number:06d}-joined", images),
            statistics=reduce(add, statistics) if statistics else None,
            damages=tuple(damage for commit, _ in taken for damage in commit.damages),
            notes=sum((Counter(commit.notes) for commit, _ in taken), Counter()),
        )
        return self._commit(self.paths.joined_unit(number), own), images

    def _take(self, unit: int) -> tuple[UnitCommit, Images | None]:
        found = self.find(self.paths.unit(unit))
        return self.write_unit(unit) if found is None else (found, self._read(found))

    def _read(self, commit: UnitCommit) -> Images | None:
        return None if commit.chunk is None else read_chunk(self.store, commit.chunk)

    def _put(self, name: str, images: Images) -> Chunk:
        body = encode_chunk(images)
        key = f"{self.paths.chunks}{name}-{uuid.uuid4().hex[:12]}.npy"
        self.own_chunks.add(key)
        self.store.put(key, body)
        return Chunk(key, len(images), len(body), hashlib.sha256(body).hexdigest())

    def _commit(self, key: str, own: UnitCommit) -> UnitCommit:
        body = UNIT_COMMIT.encode(own)
        found = self._put_or_read(key, body)
        if found == body:
            return own
        standing = UNIT_COMMIT.decode(found, key)
        if own.chunk is not None and (
            standing.chunk is None or standing.chunk.key != own.chunk.key
        ):
            logger.info("%s was prepared by another process", key)
            self.store.delete(own.chunk.key)
        return standing


def preparation_name(source: Source, reading: Reading) -> str:
    """Return the name of a preparation: what its outcome follows from."""
    text = f"{source.name}\n{source.stamp}\n{reading.sha256}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plan(source: Source, reading: Reading, num_units: int) -> Plan:
    """Look at the first image that can be read."""
    damages: list[Damage] = []
    block = None
    for start in range(0, source.num_images, 16):
        stop = min(start + 16, source.num_images)
        for part in decoded(source, reading, start, stop, Counter()):
            if isinstance(part, Block):
                block = part
                break
            damages.append(part)
        if block is not None:
            break
    if block is None:
        raise list_damage(damages, source.num_images)
    if block.images.dtype.kind == "f" and reading.value_range == "auto":
        raise DatasetError(
            f"{block.name} holds {block.images.dtype} values, which have no range of their own; "
            "set dataset.value_range: [low, high], the values that become -1 and 1, or minmax"
        )
    height, width, channels = block.images.shape[1:]
    images_per_chunk = max(1, CHUNK_BYTES // block.images[0].nbytes)
    wanted = max(_LEAST_IMAGES, -(-source.num_images // num_units))
    return Plan(
        num_images=source.num_images,
        images_per_chunk=images_per_chunk,
        images_per_unit=min(images_per_chunk, wanted) if num_units > 1 else images_per_chunk,
        image_shape=(height, width, channels),
        dtype=block.images.dtype.name,
        first_name=block.name,
    )


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height} x {width} with {counted(channels, 'channel')}"


def _advice(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    advice = []
    if found[:2] != wanted[:2]:
        advice.append("dataset.image_size scales them to one size")
    if found[2] != wanted[2]:
        alpha = " (2 and 4 are with transparency)" if {found[2], wanted[2]} & {2, 4} else ""
        advice.append(f"dataset.channels: grey, rgb or rgba brings them to one kind{alpha}")
    return f"; {', '.join(advice)}" if advice else ""
