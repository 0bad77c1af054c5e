"""Which images belong to which shard: a plan, computed when asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import BadInputError


@dataclass(frozen=True)
class Shard:
    """Images start..stop-1 of a set, drawn and committed together."""

    index: int
    start: int
    stop: int

    @property
    def num_images(self) -> int:
        """Images in it; the last shard of a plan may be short."""
        return self.stop - self.start


class Plan(Protocol):
    """Shards by number."""

    @property
    def num_samples(self) -> int:
        """Images in all."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Shard: ...

    def __iter__(self) -> Iterator[Shard]: ...


@dataclass(frozen=True)
class JoinedPlan:
    """Several plans one after the other, for one fleet; shards are numbered through.

    Attributes:
        parts: The plans.
    """

    parts: tuple["ShardPlan", ...]

    @property
    def num_samples(self) -> int:
        """Images in all."""
        return sum(part.num_samples for part in self.parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> Shard:
        number, shard = self.locate(index)
        first = sum(part.num_samples for part in self.parts[:number])
        return Shard(index, first + shard.start, first + shard.stop)

    def __iter__(self) -> Iterator[Shard]:
        return (self[index] for index in range(len(self)))

    def locate(self, index: int) -> tuple[int, Shard]:
        """Return which part a shard is of, and the shard as that part numbers it."""
        rest = index
        for number, part in enumerate(self.parts):
            if 0 <= rest < len(part):
                return number, part[rest]
            rest -= len(part)
        raise IndexError(f"the plans have shards 0..{len(self) - 1}, not {index}")


@dataclass(frozen=True)
class ShardPlan:
    """The shards of a set, computed when asked for.

    Attributes:
        num_samples: Images of the set.
        shard_size: Images of a shard; the last one has what is left.
    """

    num_samples: int
    shard_size: int

    def __len__(self) -> int:
        return -(-self.num_samples // self.shard_size)

    def __getitem__(self, index: int) -> Shard:
        if not 0 <= index < len(self):
            raise IndexError(f"the plan has shards 0..{len(self) - 1}, not {index}")
        start = index * self.shard_size
        return Shard(index, start, min(start + self.shard_size, self.num_samples))

    def __iter__(self) -> Iterator[Shard]:
        return (self[index] for index in range(len(self)))


def plan_shards(num_samples: int, shard_size: int) -> ShardPlan:
    """Cut num_samples images into shards of shard_size.

    Raises:
        BadInputError: One of the two is below 1.
    """
    for name, value in (("num_samples", num_samples), ("shard_size", shard_size)):
        if value < 1:
            raise BadInputError(f"{name} must be at least 1, not {value}")
    return ShardPlan(num_samples, shard_size)
