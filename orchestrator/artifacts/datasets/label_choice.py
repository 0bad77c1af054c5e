"""Chooses where the labels of a source are from, as a job file says."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.artifacts.datasets.label_files import labels_from_file
from orchestrator.artifacts.datasets.label_sources import labels_from_folders
from orchestrator.artifacts.datasets.labels import ClassLabels
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.places import LocalPlace, Place, StorePlace
from orchestrator.errors import DatasetError
from orchestrator.store.objects import ObjectStore

_MEMBERS = (".json", ".txt", ".pyd")  # of WebDataset, with anything in them


def find_labels(
    source: Source,
    mode: str,
    open_place: Callable[[str], ObjectStore],
    *,
    are_needed: bool = True,
) -> ClassLabels | None:
    """Return the labels of a source's images, damaged ones among them; None if there are none.

    Args:
        source: Where the images are from.
        mode: `none`, `auto`, `folders` or `file:PATH`.
        open_place: Opens the s3:// URI of a file.
        are_needed: Whether `auto` is refused where there are none.

    Raises:
        DatasetError: There are none though they are needed, or they can't be read.
    """
    if mode == "none":
        return None
    if mode.startswith("file:"):
        place, path = _file_place(mode.removeprefix("file:"), open_place)
        return labels_from_file(place, path, source.names, source.num_images)
    if mode == "folders":
        if source.names is None:
            raise DatasetError(f"{source.name} has no folders that could name classes")
        return labels_from_folders(source.names, source.name)
    finder = next(iter(source.labels.values()), None)
    labels = finder() if finder is not None else None
    if labels is None and are_needed:
        raise DatasetError(
            f"{source.name} has no labels that can be found: no folders, no labels in a "
            "dataset.json, no .cls, label array or label column; "
            f"{_members_named(source)}give dataset.labels: {{file: PATH}}"
        )
    return labels


def _members_named(source: Source) -> str:
    """Return a word on the members of a WebDataset that may hold labels, each in its own way."""
    others = source.listing.others if source.listing is not None else {}
    member = next((n for n, e in others.items() if e.path != n and n.endswith(_MEMBERS)), None)
    if member is None:
        return ""
    return f"members as {member} are not read: write each label into a .cls beside it, or "


def _file_place(path: str, open_place: Callable[[str], ObjectStore]) -> tuple[Place, str]:
    if path.startswith("s3://"):
        folder, _, name = path.rpartition("/")
        return StorePlace(open_place(folder)), name
    return LocalPlace(Path(path).parent), Path(path).name
