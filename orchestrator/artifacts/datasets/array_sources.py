"""Opens files of arrays as sources: one .npy, IDX or .npz, and folders of them."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from orchestrator.artifacts.datasets.archives import list_zip
from orchestrator.artifacts.datasets.array_pictures import is_one_image
from orchestrator.artifacts.datasets.arrays import (
    LABEL_NAMES,
    ArrayFile,
    Block,
    choose_images,
    choose_labels,
    npz_arrays,
    open_array,
    read_header,
    read_vector,
)
from orchestrator.artifacts.datasets.catalog import Catalog, Entry
from orchestrator.artifacts.datasets.entries import SUFFIXES, Collector, Listing
from orchestrator.artifacts.datasets.label_sources import LabelFinder
from orchestrator.artifacts.datasets.label_values import labels_from_array
from orchestrator.artifacts.datasets.labels import ClassLabels
from orchestrator.artifacts.datasets.left_out import ARRAY, Survey
from orchestrator.artifacts.datasets.opened import Source, hash_of, pictures_of
from orchestrator.artifacts.datasets.places import Place
from orchestrator.artifacts.datasets.unpacking import damage_translated
from orchestrator.errors import DatasetError

ARRAY_SUFFIXES = (".npy", ".npz")
_IDX_IMAGES = re.compile(r"images([-.])idx\d")


def open_zip(place: Place, path: str, stamp: str) -> Source:
    """Open a zip: the pictures in it, or else one array of a .npz. Raises: DatasetError."""
    name = place.full_name(path)
    with damage_translated(name), place.open(path) as file, zipfile.ZipFile(file) as archive:
        arrays = npz_arrays(archive, name)
        are_pictures = any(
            PurePosixPath(member).suffix.lower() in SUFFIXES for member in archive.namelist()
        )
    if arrays and not are_pictures:
        return _open_npz(place, path, stamp, arrays)
    found = Collector(place)
    list_zip(found, place, path, stamp)
    return pictures_of(found.listing(), name)


def _open_npz(place: Place, path: str, stamp: str, arrays: Sequence[str]) -> Source:
    name = place.full_name(path)
    member = choose_images(arrays, name)
    source = open_array_file(place, path, stamp, member)
    labels = choose_labels(arrays, member)
    for array in arrays:
        if array not in (member, labels):
            source.survey.leave_out(ARRAY, array)
    if labels is not None:
        source.labels["array"] = lambda: labels_from_array(
            read_vector(place, path, labels), f"{name}: {labels}"
        )
    return source


def open_array_file(place: Place, path: str, stamp: str, member: str | None = None) -> Source:
    """Open the images of one array file as a source. Raises: DatasetError."""
    file = ArrayFile(place, path, member)
    labels: dict[str, LabelFinder] = {}
    beside = _idx_labels(place, path)
    if beside is not None:
        labels["array"] = lambda: labels_from_array(
            read_vector(place, beside), place.full_name(beside)
        )
    return Source(
        file.name, file.num_images, Survey(), blocks=file.blocks, labels=labels, stamp=stamp
    )


def _idx_labels(place: Place, path: str) -> str | None:
    """Return the IDX file of labels beside one of images, packed or not; None where none is."""
    name, changed = _IDX_IMAGES.subn(r"labels\1idx1", PurePosixPath(path).name)
    others = (name, f"{name}.gz", name.removesuffix(".gz")) if changed else ()
    beside = [str(PurePosixPath(path).with_name(other)) for other in others]
    return next((other for other in beside if _is_there(place, other)), None)


def _is_there(place: Place, path: str) -> bool:
    try:
        return bool(place.read(path, 0, 1))
    except DatasetError:
        return False


def open_array_folder(listing: Listing, files: Sequence[Entry]) -> Source:
    """Open a folder of .npy or .npz: images beside labels, one image each, or several each.

    Args:
        listing: Of the folder.
        files: The arrays of it.

    Raises:
        DatasetError: They cannot be used so.
    """
    pair = _images_beside_labels(listing, files)
    if pair is not None:
        return pair
    members = _Members(listing.place, files)
    if members.hold_one_image:
        pictures = Listing(
            listing.place, Catalog(files), listing.others, listing.survey, listing.classes
        )
        return pictures_of(pictures, listing.place.name)
    return Source(
        listing.place.name,
        members.num_images,
        listing.survey,
        blocks=members.blocks,
        labels={"array": members.labels} if members.have_labels else {},
        stamp=hash_of(entry.to_json() for entry in files),
    )


def _images_beside_labels(listing: Listing, files: Sequence[Entry]) -> Source | None:
    """Open images.npy beside labels.npy, or x_train.npy beside y_train.npy, as a .npz of both."""
    path_of = {PurePosixPath(e.name).stem: e.path for e in files if e.name.endswith(".npy")}
    if len(path_of) != len(files) or not set(path_of) & set(LABEL_NAMES):
        return None
    place, stamp = listing.place, hash_of(entry.to_json() for entry in files)
    images = choose_images(list(path_of), place.name)
    labels = choose_labels(list(path_of), images)
    source = open_array_file(place, path_of[images], stamp)
    for stem in sorted(set(path_of) - {images, labels}):
        listing.survey.leave_out(ARRAY, stem)
    finders = dict(source.labels)
    if labels is not None:
        finders["array"] = lambda: labels_from_array(
            read_vector(place, path_of[labels]), place.full_name(path_of[labels])
        )
    return replace(source, survey=listing.survey, labels=finders)


class _Members:
    """The arrays of a folder one behind the other.

    Args:
        place: Where they lie.
        files: In order.

    Attributes:
        hold_one_image: Whether each is one image; then nothing else here is of use.
        num_images: Of all.
        have_labels: Whether each file has labels of its own.

    Raises:
        DatasetError: A file is damaged or holds no images.
    """

    def __init__(self, place: Place, files: Sequence[Entry]) -> None:
        self._place = place
        self._paths = [entry.path for entry in files]
        first, _ = self._members(self._paths[0])
        with open_array(place, self._paths[0], first) as file:
            name = place.full_name(self._paths[0])
            self.hold_one_image = is_one_image(read_header(file, name).shape, name)
        self._arrays: list[ArrayFile] = []
        self._labels: list[str | None] = []
        for path in () if self.hold_one_image else self._paths:
            images, labels = self._members(path)
            self._arrays.append(ArrayFile(place, path, images))
            self._labels.append(labels)
        self.num_images = sum(array.num_images for array in self._arrays)
        self.have_labels = bool(self._labels) and None not in self._labels

    def _members(self, path: str) -> tuple[str | None, str | None]:
        """Return the arrays of a .npz with the images and their labels; of a .npy none."""
        name = self._place.full_name(path)
        if not path.lower().endswith(".npz"):
            return None, None
        with (
            damage_translated(name),
            self._place.open(path) as file,
            zipfile.ZipFile(file) as archive,
        ):
            arrays = npz_arrays(archive, name)
        images = choose_images(arrays, name)
        return images, choose_labels(arrays, images)

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the images from `start` to `stop`. Raises: DatasetError."""
        first = 0
        for array in self._arrays:
            lower, upper = max(start, first) - first, min(stop, first + array.num_images) - first
            if lower < upper:
                for block in array.blocks(lower, upper):
                    yield replace(block, start=first + block.start)
            first += array.num_images

    def labels(self) -> ClassLabels:
        """Return the labels of all files. Raises: DatasetError."""
        parts = [
            read_vector(self._place, path, member)
            for path, member in zip(self._paths, self._labels, strict=True)
        ]
        if len({part.shape[1:] for part in parts}) != 1:
            raise DatasetError(f"{self._place.name} holds labels of different shapes")
        for array, part in zip(self._arrays, parts, strict=True):
            if len(part) != array.num_images:
                raise DatasetError(
                    f"{array.name} has {array.num_images} images but {len(part)} labels"
                )
        return labels_from_array(np.concatenate(parts), f"{self._place.name}: its labels")
