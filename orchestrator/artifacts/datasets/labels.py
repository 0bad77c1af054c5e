"""The classes of a data set's images: how they are named, hashed and kept.

A data set with labels is a manifest of its own beside that of its images, so that images are stored
once, with labels or without:

* `datasets/<images>/` holds the images; its name is the hash of the pixels, as ever.
* `datasets/<labelled>/labels.npy` is (N,) int64 in [0, num_classes), one for each image in the
  order of the images; `datasets/<labelled>/manifest.json`, which is written last, holds
  `images_sha256` (the folder above), `class_names` and `class_counts` (image by class number).
  Its name is the SHA-256 of the two hashes, that of the images and that of the labels.

A job pins one of the two names as `dataset.sha256`: the labelled one where it uses the labels. A
worker finds the files by `fetch` and `fetch_labels`, opens them as
`ImageDataset.open(images, labels)`, and `ImageDataset.labels(indices)` returns (B,) int64. Every
image has a class; "no class", as classifier-free guidance draws it, is the training's affair.
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.refs import FORMAT_VERSION, DatasetRef, manifest_key
from orchestrator.counts import counted
from orchestrator.errors import (
    ConditionFailedError,
    DatasetError,
    ObjectNotFoundError,
    one_line,
)
from orchestrator.store.codec import Codec
from orchestrator.store.keys import dataset_folder
from orchestrator.store.objects import ObjectStore

_LABELLED = Codec(DatasetRef, "manifest of a data set", version=FORMAT_VERSION, indent=1)
_NO_CLASS = 1 << 53  # above every class number, and exact as a float
_ALL_NAMED = 12  # of more classes than these, some are shown
_ADVICE = "delete the data set there and submit the job again"


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """The class of every image of a set.

    Attributes:
        values: (N,) int64 in [0, len(names)).
        names: Name of each class.
        notes: What is odd about where they are from, a line each.
    """

    values: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
        return tuple(np.bincount(self.values, minlength=len(self.names)).tolist())

    @property
    def sha256(self) -> str:
        """Hash of the classes' names and of every image's class."""
        names = json.dumps(self.names, ensure_ascii=True)
        digest = hashlib.sha256(f"int64 {len(self.values)} {names}\n".encode())
        digest.update(np.ascontiguousarray(self.values, "<i8").data)
        return digest.hexdigest()


def labels_from_names(names: Sequence[str]) -> ClassLabels:
    """Number the classes in the order of their names' bytes, which need not be UTF-8."""
    classes = sorted(set(names), key=os.fsencode)
    number_of = {name: number for number, name in enumerate(classes)}
    texts = (os.fsencode(name).decode("utf-8", "backslashreplace") for name in classes)
    shown = tuple(map(one_line, texts))
    return ClassLabels(np.array([number_of[name] for name in names], np.int64), shown)


def labels_from_numbers(numbers: NDArray[np.generic], source: str) -> ClassLabels:
    """Take over classes that are numbered already; a class without an image keeps its number.

    Args:
        numbers: (N,) whole numbers from 0, of any type, or truth values.
        source: What messages call their origin.

    Raises:
        DatasetError: They are no class numbers.
    """
    if numbers.dtype.kind == "f":
        are_whole = np.isfinite(numbers) & (np.floor(numbers) == numbers)
        if not are_whole.all():
            first = int(np.argmin(are_whole))
            raise DatasetError(
                f"{source} holds labels that are no whole numbers: {numbers[first]} for image "
                f"{first}"
            )
        numbers = numbers.astype(np.float64).clip(-_NO_CLASS, _NO_CLASS)  # so that none wraps round
    if numbers.dtype.kind in "bf":
        numbers = numbers.astype(np.int64)
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.ndim != 1:
        raise DatasetError(
            f"{source} holds labels as {numbers.dtype} {numbers.shape}; "
            "save one whole number from 0, or one name, for each image"
        )
    values = numbers.astype(np.int64)
    if values.size and (values.min() < 0 or values.max() >= max(len(values), 1 << 16)):
        raise DatasetError(
            f"{source} holds labels from {values.min()} to {values.max()}; "
            "number the classes from 0"
        )
    num_classes = int(values.max(initial=-1)) + 1
    return ClassLabels(values, tuple(map(str, range(num_classes))))


def labelled_sha256(images_sha256: str, labels: ClassLabels) -> str:
    """Return the name of a set of images together with labels."""
    return hashlib.sha256(f"{images_sha256} {labels.sha256}\n".encode()).hexdigest()


def with_labels(images: DatasetRef, labels: ClassLabels) -> DatasetRef:
    """Return what a labelled set is called and holds.

    Raises:
        DatasetError: There are more or fewer labels than images.
    """
    if len(labels.values) != images.num_images:
        raise DatasetError(
            f"{images.source} has {counted(images.num_images, 'image')} but "
            f"{counted(len(labels.values), 'label')}"
        )
    return replace(
        images,
        sha256=labelled_sha256(images.images, labels),
        images_sha256=images.images,
        class_names=labels.names,
        class_counts=labels.counts,
    )


def store_labels(ref: DatasetRef, labels: ClassLabels, store: ObjectStore) -> None:
    """Put the labels of a set whose images are in the store beside them, unless they are there."""
    if store.exists(manifest_key(ref.sha256)):
        return
    packed = io.BytesIO()
    np.save(packed, labels.values, allow_pickle=False)
    store.put(_labels_key(ref.sha256), packed.getvalue())
    try:
        store.put(manifest_key(ref.sha256), _LABELLED.encode(ref), if_absent=True)
    except ConditionFailedError:
        return  # somebody stored the same labels meanwhile


def read_labels(store: ObjectStore, ref: DatasetRef) -> ClassLabels:
    """Return a labelled set's labels, proved by its name.

    Raises:
        DatasetError: They are missing or damaged.
    """
    key = _labels_key(ref.sha256)
    try:
        values = np.load(io.BytesIO(store.get(key).body), allow_pickle=False)
    except (ObjectNotFoundError, ValueError, EOFError, OSError) as error:
        raise DatasetError(f"{store.uri}/{key} cannot be read; {_ADVICE}") from error
    labels = ClassLabels(values, ref.class_names)
    if labelled_sha256(ref.images, labels) != ref.sha256:
        raise DatasetError(f"{store.uri}/{key} is damaged: it has another SHA-256; {_ADVICE}")
    return labels


def fetch_labels(store: ObjectStore, ref: DatasetRef, cache: Path) -> Path | None:
    """Return the local .npy of a set's labels, (N,) int64; None for a set without.

    Raises:
        DatasetError: They are missing or damaged.
    """
    if not ref.class_names:
        return None
    labels = read_labels(store, ref)
    path = cache / ref.sha256 / "labels.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetch-") as folder:
        scratch = Path(folder) / path.name
        np.save(scratch, labels.values, allow_pickle=False)
        scratch.replace(path)
    return path


def describe_classes(ref: DatasetRef) -> str:
    """Return the counts of the classes for people: all of a few, else the range."""
    pairs = list(zip(ref.class_names, ref.class_counts, strict=True))
    named = pairs if len(pairs) <= _ALL_NAMED else pairs[:3]
    shown = ", ".join(f"{name} {count}" for name, count in named)
    if len(named) == len(pairs):
        return f"{counted(len(pairs), 'class')}: {shown}"
    least, most = min(ref.class_counts), max(ref.class_counts)
    return f"{counted(len(pairs), 'class')} of {least} to {counted(most, 'image')}: {shown}, ..."


def _labels_key(sha256: str) -> str:
    return f"{dataset_folder(sha256)}labels.npy"
