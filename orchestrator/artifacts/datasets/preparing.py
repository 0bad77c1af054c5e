"""Prepares a data set: a source is cut into units, and each unit becomes one committed chunk.

A unit is a run of neighbouring images of the source, as many as fit a chunk. Its chunk goes first,
under a name of its own; a small put-if-absent object then names it. So any number of processes may
work on one preparation, be killed at any moment, and go on: a unit is done once. When all are
committed, the pixels are hashed in order and the manifest is put under that hash.

A preparation is named by what its outcome follows from: the source as it was found, how it is read,
and the versions of the libraries that decode. With other versions it is another preparation.
"""

import hashlib
import json
import logging
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.arrays import Block
from orchestrator.artifacts.datasets.chunks import CHUNK_BYTES, Chunk, encode_chunk
from orchestrator.artifacts.datasets.decoding import Damage, decoded, list_damage
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.sources import Source
from orchestrator.artifacts.datasets.statistics import Statistics
from orchestrator.counts import counted
from orchestrator.errors import ConditionFailedError, DatasetError, ObjectNotFoundError
from orchestrator.store.keys import PreparationPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a source is cut.

    Attributes:
        num_images: Of the source, damaged ones among them.
        images_per_unit: Of every unit but the last.
        image_shape: (H, W, C) of every image.
        dtype: Of a value.
        first_name: The image that the shape was taken from.
    """

    num_images: int
    images_per_unit: int
    image_shape: tuple[int, int, int]
    dtype: str
    first_name: str

    @property
    def num_units(self) -> int:
        """How many units there are."""
        return -(-self.num_images // self.images_per_unit)

    def bounds(self, unit: int) -> tuple[int, int]:
        """Return the first image of a unit, and one past its last."""
        start = unit * self.images_per_unit
        return start, min(start + self.images_per_unit, self.num_images)

    @classmethod
    def from_json(cls, body: bytes) -> "Plan":
        """Read a stored plan."""
        value = json.loads(body)
        height, width, channels = value.pop("image_shape")
        return cls(image_shape=(height, width, channels), **value)


@dataclass(frozen=True, kw_only=True)
class UnitCommit:
    """What makes a unit done.

    Attributes:
        index: Its number.
        chunk: Its images; None where none of them can be read.
        statistics: Of its images; None where there are none.
        damages: Images of it that cannot be read.
        notes: What was done to images that their owner should know.
    """

    index: int
    chunk: Chunk | None
    statistics: Statistics | None
    damages: tuple[Damage, ...]
    notes: Mapping[str, int]

    def to_json(self) -> bytes:
        """Return it as JSON."""
        value = {
            "index": self.index,
            "chunk": self.chunk and asdict(self.chunk),
            "statistics": self.statistics and self.statistics.to_json(),
            "damages": [asdict(damage) for damage in self.damages],
            "notes": dict(self.notes),
        }
        return json.dumps({"format_version": 1, **value}).encode()

    @classmethod
    def from_json(cls, body: bytes) -> "UnitCommit":
        """Read a commit back."""
        value: dict[str, Any] = json.loads(body)
        return cls(
            index=value["index"],
            chunk=Chunk(**value["chunk"]) if value["chunk"] else None,
            statistics=Statistics.from_json(value["statistics"]) if value["statistics"] else None,
            damages=tuple(Damage(**damage) for damage in value["damages"]),
            notes=value["notes"],
        )


class Preparation:
    """One preparation of a source.

    Args:
        source: Where the images are from.
        reading: What they are to become.
        store: Where they go.

    Raises:
        DatasetError: Not one image can be read, or floats come without a range.
    """

    def __init__(self, source: Source, reading: Reading, store: ObjectStore) -> None:
        self.source = source
        self.reading = reading
        self.store = store
        self.paths = PreparationPaths(preparation_name(source, reading))
        self.plan = self._planned()

    def _planned(self) -> Plan:
        try:
            return Plan.from_json(self.store.get(self.paths.plan).body)
        except ObjectNotFoundError:
            plan = _plan(self.source, self.reading)
        try:
            self.store.put(self.paths.plan, json.dumps(asdict(plan)).encode(), if_absent=True)
        except ConditionFailedError:
            return Plan.from_json(self.store.get(self.paths.plan).body)
        return plan

    def committed(self) -> dict[int, UnitCommit]:
        """Return the units that are done."""
        found = {}
        for info in self.store.list_objects(self.paths.units):
            commit = UnitCommit.from_json(self.store.get(info.key).body)
            found[commit.index] = commit
        return found

    def read_unit(self, unit: int) -> tuple[NDArray[Any] | None, list[Damage], Counter[str]]:
        """Return the images of a unit, (n, H, W, C); what cannot be read; and what was noted.

        Raises:
            DatasetError: An image does not fit the others, or an array is damaged.
        """
        start, stop = self.plan.bounds(unit)
        images = np.empty((stop - start, *self.plan.image_shape), self.plan.dtype)
        num_images, damages, notes = 0, [], Counter[str]()
        for part in decoded(self.source, self.reading, start, stop, notes):
            if isinstance(part, Damage):
                damages.append(part)
                continue
            self._check(part)
            images[num_images : num_images + len(part.images)] = part.images
            num_images += len(part.images)
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

    def write_unit(self, unit: int) -> tuple[UnitCommit, NDArray[Any] | None]:
        """Read a unit, put its chunk and commit it; return the commit that stands.

        Raises:
            DatasetError: An image does not fit the others, or an array is damaged.
        """
        images, damages, notes = self.read_unit(unit)
        chunk = None
        if images is not None:
            body = encode_chunk(images)
            key = f"{self.paths.chunks}{unit:06d}-{uuid.uuid4().hex[:12]}.npy"
            chunk = Chunk(key, len(images), len(body), hashlib.sha256(body).hexdigest())
            self.store.put(key, body)
        commit = UnitCommit(
            index=unit,
            chunk=chunk,
            statistics=None if images is None else Statistics.of(images),
            damages=tuple(damages),
            notes=notes,
        )
        return self._commit(commit), images

    def _commit(self, own: UnitCommit) -> UnitCommit:
        key = self.paths.unit(own.index)
        try:
            self.store.put(key, own.to_json(), if_absent=True)
            return own
        except ConditionFailedError:
            standing = UnitCommit.from_json(self.store.get(key).body)
        if own.chunk is not None and (
            standing.chunk is None or standing.chunk.key != own.chunk.key
        ):
            logger.info("unit=%d was prepared by another process", own.index)
            self.store.delete(own.chunk.key)
        return standing


def preparation_name(source: Source, reading: Reading) -> str:
    """Return the name of a preparation: what its outcome follows from."""
    text = f"{source.name}\n{source.stamp}\n{reading.sha256}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plan(source: Source, reading: Reading) -> Plan:
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
    return Plan(
        num_images=source.num_images,
        images_per_unit=max(1, CHUNK_BYTES // block.images[0].nbytes),
        image_shape=(height, width, channels),
        dtype=block.images.dtype.name,
        first_name=block.name,
    )


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height} x {width} with {counted(channels, 'channel')}"


def _advice(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    told = []
    if found[:2] != wanted[:2]:
        told.append("dataset.image_size scales them to one size")
    if found[2] != wanted[2]:
        alpha = " (2 and 4 are with transparency)" if {found[2], wanted[2]} & {2, 4} else ""
        told.append(f"dataset.channels: grey, rgb or rgba brings them to one kind{alpha}")
    return f"; {', '.join(told)}" if told else ""
