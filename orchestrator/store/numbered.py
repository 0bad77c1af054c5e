"""Streams in the store: objects with the numbers 1, 2, 3, ... in one folder, without gaps."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.errors import ConditionFailedError, ObjectNotFoundError
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True)
class NumberedFolder:
    """A folder of numbered objects.

    Attributes:
        store: Where it is.
        folder: Its key, ending in "/".
        suffix: What follows the number, such as ".log".
    """

    store: ObjectStore
    folder: str
    suffix: str

    def key(self, number: int) -> str:
        """Return the key of a number; keys sort by it."""
        return f"{self.folder}{number:08d}{self.suffix}"

    def numbers(self, after: int = 0) -> list[int]:
        """Return the numbers above `after` that are there, ascending."""
        names = [
            info.key.removeprefix(self.folder).removesuffix(self.suffix)
            for info in self.store.list_objects(self.folder, self.key(after) if after else "")
        ]
        return sorted(int(name) for name in names if name.isdigit() and int(name) > after)

    def newest(self) -> int:
        """Return the highest number that is there, or 0."""
        return max(self.numbers(), default=0)

    def bodies(self, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield the numbers above `after` with their bodies, ascending."""
        for number in self.numbers(after):
            yield number, self.store.get(self.key(number)).body

    def put(self, number: int, body: bytes) -> int:
        """Put a body under the first free number from `number` on, and return that number.

        Doing it again after an outage, which leaves open whether it happened, does it once.
        """
        while True:
            try:
                self.store.put(self.key(number), body, if_absent=True)
                return number
            except ConditionFailedError:
                if self._holds(number, body):
                    return number
            number += 1

    def _holds(self, number: int, body: bytes) -> bool:
        try:
            return self.store.get(self.key(number)).body == body
        except ObjectNotFoundError:
            return False
