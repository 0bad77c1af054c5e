"""Which is the set where a folder holds pictures and archives: one of them may be a logo."""

from collections.abc import Sequence

from orchestrator.artifacts.datasets.catalog import Entry
from orchestrator.artifacts.datasets.entries import Listing
from orchestrator.artifacts.datasets.left_out import BESIDE
from orchestrator.counts import counted
from orchestrator.errors import DatasetError

_FEW = 8  # pictures for each archive; more are no logo, sample or diagram
_FAR_MORE = 10  # times the pictures' bytes


def pictures_are_beside(listing: Listing, archives: Sequence[Entry]) -> bool:
    """Tell whether the pictures of a folder only lie beside its set, which is the archives.

    Args:
        listing: Of the folder, with pictures.
        archives: Its tars, tables or arrays, which could be a set.

    Raises:
        DatasetError: Either could be meant; the message names both.
    """
    num_pictures = len(listing.pictures)
    if not archives or num_pictures > _FEW * len(archives):
        return False
    archive_bytes = sum(listing.archive_bytes[entry.name] for entry in archives)
    if archive_bytes >= _FAR_MORE * listing.picture_bytes:
        return True
    if archive_bytes < listing.picture_bytes and num_pictures > len(archives):
        return False
    raise DatasetError(
        f"{listing.place.name} holds {counted(num_pictures, 'picture')} "
        f"({_named(listing.pictures)}) beside {counted(len(archives), 'file')} that may be the set "
        f"as well ({_named(archives)}); put what is meant into a folder of its own"
    )


def _named(entries: Sequence[Entry]) -> str:
    return f"{entries[0].name}{', ...' if len(entries) > 1 else ''}"


def leave_pictures_out(listing: Listing) -> None:
    """Count the pictures of a folder among what is left out."""
    for entry in listing.pictures:
        listing.survey.leave_out(BESIDE, entry.name)
