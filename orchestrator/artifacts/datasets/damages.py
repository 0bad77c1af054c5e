"""Images of a source that cannot be read: which, and what is wrong with them."""

from dataclasses import dataclass

from orchestrator.counts import counted
from orchestrator.errors import DatasetError

MAX_LISTED = 20


@dataclass(frozen=True)
class Damage:
    """An image that cannot be read.

    Attributes:
        index: Its place in the source.
        problem: What is wrong, with its name.
    """

    index: int
    problem: str


def list_damage(damages: list[Damage], num_images: int) -> DatasetError:
    """Return the error that names damaged images: the first ones, and how many there are."""
    message = "; ".join(damage.problem for damage in damages[:MAX_LISTED])
    more = len(damages) - MAX_LISTED
    rest = f"; and {more} more" if more > 0 else ""
    if len(damages) == 1 and num_images == 1:
        return DatasetError(message)
    count = f"{len(damages)} of {counted(num_images, 'image')} cannot be read"
    return DatasetError(
        f"{count}: {message}{rest}. Mend or remove them, or set dataset.skip_damaged: true"
    )
