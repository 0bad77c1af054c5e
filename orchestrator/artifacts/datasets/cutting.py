"""How a source is cut for its preparation, and what is committed of each piece that is done.

A *chunk* is what a set consists of: neighbouring images, about 64 MiB of them. A *unit* is what one
process prepares and commits at a time: a whole chunk where there are many, else a part of one, so
that many processes have something to do. How a set is cut into chunks follows from the size of its
images alone, so it does not depend on who prepared it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.artifacts.datasets.chunks import Chunk
from orchestrator.artifacts.datasets.damages import Damage
from orchestrator.artifacts.datasets.statistics import Statistics
from orchestrator.store.codec import Codec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a source is cut.

    Attributes:
        num_images: Of the source, damaged ones among them.
        images_per_chunk: Of every chunk but the last.
        images_per_unit: Of every unit, but for the last of a chunk.
        image_shape: (H, W, C) of every image.
        dtype: Of a value.
        first_name: The image that the shape was taken from.
    """

    num_images: int
    images_per_chunk: int
    images_per_unit: int
    image_shape: tuple[int, int, int]
    dtype: str
    first_name: str

    @property
    def num_chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.num_images // self.images_per_chunk)

    @property
    def units_per_chunk(self) -> int:
        """How many units a full chunk has."""
        return -(-self.images_per_chunk // self.images_per_unit)

    @property
    def num_units(self) -> int:
        """How many units there are."""
        whole, rest = divmod(self.num_images, self.images_per_chunk)
        return whole * self.units_per_chunk - (-rest // self.images_per_unit)

    def bounds(self, unit: int) -> tuple[int, int]:
        """Return the first image of a unit, and one past its last."""
        chunk, number = divmod(unit, self.units_per_chunk)
        first = chunk * self.images_per_chunk
        start = first + number * self.images_per_unit
        ends = (start + self.images_per_unit, first + self.images_per_chunk, self.num_images)
        return start, min(ends)

    def units_of(self, chunk: int) -> range:
        """Return the units of a chunk."""
        first = chunk * self.units_per_chunk
        return range(first, min(first + self.units_per_chunk, self.num_units))


def _with_chunks(value: dict[str, object]) -> dict[str, object]:
    """Return a plan of an earlier version in this form: a unit was a chunk."""
    return {"images_per_chunk": value["images_per_unit"], **value}


PLAN = Codec(Plan, "plan of a preparation", upgrade=_with_chunks)


@dataclass(frozen=True)
class PreparationName:
    """What a job that prepares writes down first: where its units lie.

    Attributes:
        preparation: The name of its preparation.
    """

    preparation: str


PREPARATION_NAME = Codec(PreparationName, "name of a preparation")


@dataclass(frozen=True, kw_only=True)
class UnitCommit:
    """What makes a unit, or a chunk that was put together from several, done.

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


UNIT_COMMIT = Codec(UnitCommit, "unit of a preparation")
